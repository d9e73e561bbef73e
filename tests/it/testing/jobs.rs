use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;

use phalanx::prelude::*;
use phalanx::testing;
use phalanx::testing::{DrainedJobs, TestApp};
use phalanx_testkit::check_time;
use serde_json::json;
use tokio::time::Instant;

/// What jobs did, in their order.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
}

#[input]
#[derive(Clone)]
struct Mail {
    to: String,
}

/// Sends a mail.
#[task(queue = "mail")]
async fn send_mail(diary: State<Diary>, input: Mail) -> Result<(), ActionError> {
    diary.add(format!("mail to {}", input.to));
    Ok(())
}

/// Welcomes a user: now, and a week later.
#[task(attempts = 2, backoff = "1m", max_backoff = "1m", jitter = 0.0)]
async fn welcome(ctx: TaskContext, diary: State<Diary>, input: Mail) -> Result<(), ActionError> {
    diary.add(format!("welcome {}", input.to));
    if input.to == "nobody" {
        return Err(ActionError::conflict("no such user"));
    }
    ctx.tasks().enqueue::<send_mail>(input.clone()).await?;
    ctx.tasks().enqueue_in::<send_mail>(input, 7 * DAY).await?;
    Ok(())
}

/// Invites a user, who is welcomed once that has succeeded.
#[task]
async fn invite(ctx: TaskContext, diary: State<Diary>, input: Mail) -> Result<(), ActionError> {
    diary.add(format!("invite {}", input.to));
    ctx.tasks().after::<welcome>(input).await.map(drop)
}

/// Cleans up.
#[task(cron = "30 2 * * *")]
async fn nightly(diary: State<Diary>) -> Result<(), ActionError> {
    diary.add("night");
    Ok(())
}

/// Signs up.
#[action(post = "/users")]
async fn sign_up(ctx: Context, input: Mail) -> Result<(), ActionError> {
    ctx.tasks().enqueue::<welcome>(input).await.map(drop)
}

fn app() -> App {
    App::new("mails").state(Diary::default()).actions(actions![sign_up]).tasks(tasks![send_mail, welcome, invite])
}

fn diary(app: &TestApp) -> Vec<String> {
    std::mem::take(&mut app.node().state::<Diary>().unwrap().0.lock().unwrap())
}

async fn sign_up_as(app: &TestApp, to: &str) {
    app.client().post("/api/users", json!({ "to": to })).await.ok();
}

#[tokio::test]
async fn inline_jobs_are_over_when_their_enqueue_returns() {
    let app = testing::start(app()).inline_jobs().await;
    sign_up_as(&app, "ada").await;
    assert_eq!(diary(&app), ["welcome ada", "mail to ada"], "also the one that the job has enqueued");
    app.assert_enqueued::<send_mail>(|mail| mail.to == "ada");
    app.refute_enqueued::<welcome>(|_| true);
    app.advance(7 * DAY - MINUTE).await;
    assert_eq!(diary(&app), [""; 0]);
    app.advance(MINUTE).await;
    assert_eq!(diary(&app), ["mail to ada"]);
    app.refute_enqueued::<send_mail>(|_| true);
    sign_up_as(&app, "nobody").await;
    assert_eq!(diary(&app), ["welcome nobody"]);
    app.assert_enqueued::<welcome>(|mail| mail.to == "nobody");
    app.advance(MINUTE).await;
    assert_eq!(diary(&app), ["welcome nobody"], "its second attempt");
    let failed = app.node().tasks().failed(0, 9).await.unwrap();
    assert_eq!(failed.iter().map(|failed| failed.exception.as_str()).collect::<Vec<_>>(), ["conflict"]);
}

#[tokio::test]
async fn jobs_that_follow_on_inline_jobs_are_over_too() {
    let app = testing::start(app()).inline_jobs().await;
    for _ in 0..20 {
        app.node().tasks().enqueue::<invite>(Mail { to: "ada".to_owned() }).await.unwrap();
        assert_eq!(diary(&app), ["invite ada", "welcome ada", "mail to ada"]);
    }
}

#[tokio::test]
async fn manual_jobs_run_when_they_are_drained() {
    let app = testing::start(app()).manual_jobs().await;
    assert_eq!(app.drain().await, DrainedJobs::default());
    sign_up_as(&app, "ada").await;
    sign_up_as(&app, "nobody").await;
    app.assert_enqueued::<welcome>(|user| user.to == "ada");
    app.refute_enqueued::<send_mail>(|_| true);
    assert_eq!(diary(&app), [""; 0]);
    let drained = app.drain().await;
    assert_eq!((drained.done, drained.again, drained.failed, drained.dropped), (2, 1, 0, 0));
    let mut lines = diary(&app);
    lines.sort_unstable();
    assert_eq!(lines, ["mail to ada", "welcome ada", "welcome nobody"]);
    app.assert_enqueued::<send_mail>(|mail| mail.to == "ada");
    app.advance(MINUTE).await;
    app.assert_enqueued::<welcome>(|user| user.to == "nobody");
    assert_eq!(diary(&app), [""; 0], "it waits for the drain");
    assert_eq!(app.drain().await.failed, 1);
    assert_eq!(app.drain().await, DrainedJobs::default());
    diary(&app);
    app.advance(7 * DAY).await;
    app.assert_enqueued::<send_mail>(|mail| mail.to == "ada");
    assert_eq!(app.drain().await.done, 1);
    app.refute_enqueued::<send_mail>(|_| true);
}

/// A day has one of its time, wherever it begins.
#[tokio::test]
async fn ticks_are_enqueued_when_the_clock_was_put_forward() {
    let nights = || App::new("nights").state(Diary::default()).tasks(tasks![nightly]);
    let app = testing::start(nights()).manual_jobs().await;
    app.refute_enqueued::<nightly>(|_| true);
    for _ in 0..3 {
        app.advance(DAY).await;
        app.assert_enqueued::<nightly>(|_| true);
        assert_eq!(app.drain().await.done, 1);
    }
    let app = testing::start(nights()).inline_jobs().await;
    app.advance(3 * DAY).await;
    assert_eq!(diary(&app), ["night"], "the newest one: its catch_up is \"last\"");
}

/// The text of a panic of a look at jobs.
fn refusal(look: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(look)).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[tokio::test]
async fn a_look_that_fails_shows_the_jobs_and_the_line() {
    let app = testing::start(app()).manual_jobs().await;
    let none = refusal(|| app.assert_enqueued::<welcome>(|_| true));
    assert!(none.contains("tests/it/testing/jobs.rs:") && none.ends_with("but none at all"), "{none}");
    sign_up_as(&app, "ada").await;
    let other = refusal(|| app.assert_enqueued::<welcome>(|user| user.to == "bob"));
    assert!(other.ends_with(r#"but 1 other: {"to":"ada"}"#), "{other}");
    let found = refusal(|| app.refute_enqueued::<welcome>(|user| user.to == "ada"));
    assert!(found.ends_with(r#"a job of welcome is enqueued: {"to":"ada"}"#), "{found}");
    let absent = refusal(|| app.refute_enqueued::<nightly>(|_| true));
    assert!(absent.ends_with(r#"the application has no task "nightly""#), "{absent}");
    let beside = testing::start(self::app()).await;
    let chance = refusal(|| beside.refute_enqueued::<welcome>(|_| true));
    assert!(chance.contains("manual_jobs()"), "{chance}");
}

/// A hundred tests of jobs, on as many threads as the machine has cores.
#[tokio::test]
async fn a_hundred_tests_of_jobs_take_no_time() {
    let began = Instant::now();
    let test = |number: usize| async move {
        let app = testing::start(app()).manual_jobs().await;
        let user = format!("user {number}");
        sign_up_as(&app, &user).await;
        app.assert_enqueued::<welcome>(|input| input.to == user);
        assert_eq!(app.drain().await.done, 2);
        app.advance(7 * DAY).await;
        app.drain().await;
        assert_eq!(diary(&app).len(), 3);
        app.stop().await;
    };
    let lanes = (0..4).map(|lane| async move {
        for number in 0..25 {
            test(lane * 25 + number).await;
        }
    });
    futures_util::future::join_all(lanes).await;
    check_time("a hundred tests of jobs", began.elapsed(), Duration::from_secs(2));
}

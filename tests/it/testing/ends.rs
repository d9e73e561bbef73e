use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use phalanx::initializer::{Boot, Initializer};
use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{app, failure, start};

/// Panics in a hook that runs beside the requests, or in a task that the hook spawns.
async fn panic_at(place: &str) {
    if place == "hook" {
        panic!("in a hook, on purpose");
    }
    if place == "spawned" {
        tokio::spawn(async { panic!("in a spawned task, on purpose") });
    }
}

/// Panics.
#[task(attempts = 1)]
async fn fails(_ctx: TaskContext) -> Result<(), ActionError> {
    panic!("in a job, on purpose")
}

/// Enqueues `fails`.
#[action(post)]
async fn enqueue(ctx: Context) -> Result<(), ActionError> {
    ctx.tasks().enqueue::<fails>(NoInput::default()).await.map(drop)
}

#[tokio::test]
async fn a_panic_anywhere_in_the_application_fails_the_test() {
    for (place, message) in [
        ("hook", "in a hook, on purpose"),
        ("spawned", "in a spawned task, on purpose"),
        ("job", "in a job, on purpose"),
    ] {
        let failed = failure(async {
            let app = app().after_leave(move |_| panic_at(place)).actions(actions![enqueue]).tasks(tasks![fails]);
            let app = testing::start(app).await;
            let ada = app.client();
            let mut socket = ada.socket().await;
            socket.join("lobby").await;
            socket.leave("lobby").await;
            if place == "job" {
                ada.post("/api/enqueue", json!({})).await.ok();
                app.jobs_done().await;
            }
        })
        .await;
        assert!(failed.contains(message) && failed.contains("testing/ends.rs:"), "{place}: {failed}");
    }
}

#[tokio::test]
async fn a_panic_that_a_test_expects_does_not_fail_it() {
    let app = start().await;
    app.client().get("/api/panics").await.refused("internal");
    let panics = app.take_panics();
    assert!(panics.len() == 1 && panics[0].contains("in an action, on purpose"), "{panics:?}");
    let node = app.run(|node| async move { node.id().to_owned() }).await;
    assert_eq!(node, "test");
}

#[tokio::test]
async fn panics_belong_to_the_application_in_which_they_happened() {
    let (one, other) = tokio::join!(start(), start());
    one.client().get("/api/panics").await.refused("internal");
    assert_eq!((one.take_panics().len(), other.take_panics().len()), (1, 0));
}

/// Is stuck for as long as the test likes.
#[action(post, deadline = "10m")]
async fn stuck(ctx: Context) -> Result<(), ActionError> {
    ctx.cache().save("begun", &true, None).await?;
    std::future::pending().await
}

#[tokio::test]
async fn a_test_that_fails_in_the_middle_leaves_neither_port_nor_folder_nor_call() {
    let (mut addr, mut folder) = (None, None);
    let began = Instant::now();
    let failed = failure(async {
        let app = testing::start(app().actions(actions![stuck])).await;
        (addr, folder) = (Some(app.addr()), Some(app.folder().to_owned()));
        std::fs::write(app.folder().join("own"), "x").unwrap();
        let ada = app.client();
        let _socket = ada.socket().await;
        tokio::spawn(ada.post("/api/stuck", json!({})).into_future());
        let begun = async || app.node().cache().load::<bool>("begun").await.is_ok_and(|begun| begun.is_some());
        testing::until("the call runs", begun).await;
        panic!("as a failed assertion does");
    })
    .await;
    assert_eq!(failed, "as a failed assertion does");
    assert!(TcpStream::connect(addr.unwrap()).is_err(), "the port is free");
    assert!(!folder.unwrap().exists(), "the folder is gone");
    assert!(began.elapsed() < Duration::from_secs(30), "no grace is waited for: {:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_left_of_an_application_that_is_dropped() {
    let app = start().await;
    let (addr, folder) = (app.addr(), app.folder().to_owned());
    let alive = app.run(|_| async {
        let alive = std::sync::Arc::new(());
        let own = alive.clone();
        tokio::spawn(async move {
            let _own = own;
            std::future::pending::<()>().await;
        });
        std::sync::Arc::downgrade(&alive)
    });
    let alive = alive.await;
    assert!(alive.upgrade().is_some());
    drop(app);
    assert!(alive.upgrade().is_none(), "its tasks are gone");
    assert!(TcpStream::connect(addr).is_err() && !folder.exists());
    assert!(!Path::new("pids").exists(), "it writes no pid file");
}

#[tokio::test(flavor = "current_thread")]
async fn a_test_with_one_thread_stops_its_application() {
    let app = start().await;
    app.client().get("/api/shops/x?tags=a").await.ok();
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_with_several_threads_does_so_too_also_from_a_task() {
    let app = start().await;
    let ada = app.client();
    let calls = (0..20).map(|number| tokio::spawn(ada.get(&format!("/api/shops/{number}?tags=a")).into_future()));
    for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.unwrap().ok().json()["shop"], number.to_string());
    }
    tokio::spawn(async move { drop(app) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_of_the_test_ends_no_wait() {
    let app = start().await;
    let mut socket = app.client().socket().await;
    socket.join("lobby").await;
    let say = async {
        sleep(Duration::from_secs(3600)).await; // at once, by the clock of the test
        app.client().post("/api/rooms/lobby/say", json!({ "text": "hi" })).await.ok();
    };
    tokio::join!(say, socket.expect(json!({ "message": "hi" })));
}

#[tokio::test]
async fn applications_in_one_process_share_nothing() {
    let (one, other) = tokio::join!(start(), start());
    assert_ne!((one.addr(), one.folder()), (other.addr(), other.folder()));
    let (mut here, mut there) = (one.client().socket().await, other.client().socket().await);
    here.join("lobby").await;
    there.join("lobby").await;
    here.say("lobby", "hi").await;
    here.expect(json!({ "message": "hi" })).await;
    there.refute(json!({ "message": "hi" })).await;
    one.node().cache().save("key", &1, None).await.unwrap();
    assert!(other.node().cache().load::<u8>("key").await.unwrap().is_none());
    one.clock().advance(Duration::from_secs(3600));
    assert!(one.clock().now_ms() > other.clock().now_ms() + 3_000_000);
}

/// Refuses to start, panics there, or blocks its thread.
struct Unwilling(&'static str);

#[async_trait]
impl Initializer for Unwilling {
    fn name(&self) -> &'static str {
        "mail"
    }

    async fn initialize(&self, _: &mut Boot<'_>) -> Result<(), phalanx::BoxError> {
        if self.0 == "panics" {
            panic!("at the boot, on purpose");
        }
        Err(std::io::Error::other("no such mail server").into())
    }
}

#[tokio::test]
async fn an_application_that_does_not_start_says_why() {
    let reason = testing::start(app().initializer(Unwilling("refuses"))).refused().await;
    assert_eq!(reason, "initializer mail: no such mail server");
    let failed = failure(async { drop(testing::start(app().initializer(Unwilling("refuses"))).await) }).await;
    assert_eq!(failed, "kit did not start: initializer mail: no such mail server");
    let reason = testing::start(app().initializer(Unwilling("panics"))).refused().await;
    assert!(reason.contains("at the boot, on purpose"), "{reason}");
    let wrong = testing::start(app()).settings(|config| config.general.simultaneous_actions = 0).refused().await;
    assert!(wrong.contains("general.simultaneous_actions"), "{wrong}");
    let started = failure(async { drop(testing::start(app()).refused().await) }).await;
    assert!(started.contains("kit has started"), "{started}");
    // Nobody listens there.
    let away = failure(async {
        drop(
            testing::two(app, "redis://127.0.0.1:1").settings(|c| c.redis.boot_timeout = Duration::from_secs(1)).await,
        );
    })
    .await;
    assert!(away.contains("node one did not start") && away.contains("PHALANX_TEST_REDIS"), "{away}");
}

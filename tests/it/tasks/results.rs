//! Results of jobs: over HTTP, and for callers on another node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use phalanx::jobs::{AcceptedJob, JobView};
use phalanx::prelude::*;
use phalanx::serde_json::json;
use phalanx::testing;
use phalanx_testkit::{Redis, check_time, print};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::SOON;
use crate::app::settings;
use crate::client::get;
use crate::cluster::tasks::harness::setting;

/// When attempts began and were about to end.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<HashMap<String, (Instant, Instant)>>>);

/// Holds jobs.
#[derive(Clone)]
struct Gate(Arc<Semaphore>);

#[input]
#[derive(Clone)]
struct Sum {
    of: Vec<u64>,
    #[serde(default)]
    held: bool,
}

#[output]
struct Total {
    total: u64,
}

/// Adds numbers.
#[task(tracked, attempts = 1)]
async fn sum(ctx: TaskContext, times: State<Times>, gate: State<Gate>, input: Sum) -> Result<Total, ActionError> {
    let began = Instant::now();
    if input.held {
        gate.0.acquire().await.or_internal()?.forget();
    }
    ctx.progress(&json!({ "added": input.of.len() }))?;
    let total = input.of.iter().sum();
    times.0.lock().unwrap().insert(ctx.id().to_owned(), (began, Instant::now()));
    Ok(Total { total })
}

/// Starts a sum.
#[action(post = "/sums")]
async fn start_sum(ctx: Context, input: Sum) -> Result<Reply<AcceptedJob>, ActionError> {
    let job = ctx.tasks().enqueue::<sum>(input).await?;
    ctx.accepted::<sum_status>(&job)
}

#[input]
struct SumId {
    id: String,
}

/// Tells the status of a sum.
#[action(get = "/sums/{id}")]
async fn sum_status(ctx: Context, input: SumId) -> Result<JobView, ActionError> {
    ctx.tasks().status(&input.id).await.map(JobView::from)
}

/// Waits for a sum.
#[action(get = "/sums/{id}/total")]
async fn sum_total(ctx: Context, input: SumId) -> Result<Total, ActionError> {
    ctx.tasks().wait(&input.id, 10 * SECOND).await?.value()
}

/// Names an action that tells no status.
#[action(post = "/wrong")]
async fn wrong(ctx: Context, input: Sum) -> Result<Reply<AcceptedJob>, ActionError> {
    let job = ctx.tasks().enqueue::<sum>(input).await?;
    ctx.accepted::<start_sum>(&job)
}

fn app() -> App {
    app_with(&Times::default(), &Gate(Arc::new(Semaphore::new(0))))
}

fn app_with(times: &Times, gate: &Gate) -> App {
    App::new("sums")
        .state(times.clone())
        .state(gate.clone())
        .actions(group("/math").actions(actions![start_sum, sum_status, sum_total]))
        .actions(actions![wrong])
        .tasks(tasks![sum])
}

#[tokio::test]
async fn a_request_that_starts_a_job_is_accepted_with_the_path_of_its_status() {
    let app = testing::start(app()).await;
    let client = app.client();
    let accepted = client.post("/api/math/sums", json!({ "of": [1, 2, 3] })).await.ok();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let answer = accepted.json();
    let path = answer["status"].as_str().unwrap();
    assert_eq!(path, format!("/api/math/sums/{}", answer["id"].as_str().unwrap()));
    assert_eq!(accepted.header("location"), Some(path));
    let total = client.get(&format!("{path}/total")).await.ok().json();
    assert_eq!(total, json!({ "total": 6 }));
    let done = client.get(path).await.ok().json();
    assert_eq!((&done["state"], &done["result"]), (&json!("done"), &json!({ "total": 6 })), "{done}");
    assert_eq!((&done["progress"], &done["attempt"]), (&json!({ "added": 3 }), &json!(1)), "{done}");
    client.get("/api/math/sums/made-up/total").await.refused("not_tracked");
    client.post("/api/wrong", json!({ "of": [] })).await.refused("internal");
}

/// The median and the 95th percentile, or the 99th with `PERCENTILE=99`, where nothing else runs.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * setting("PERCENTILE", 95) as usize / 100])
}

/// The caller's node runs no jobs. 1,000 of them take `WAITS=1000`.
#[tokio::test]
async fn a_caller_on_another_node_has_a_result_one_message_after_the_end_of_its_job() {
    let (redis, times) = (Redis::start().await, Times::default());
    let gate = Gate(Arc::new(Semaphore::new(0)));
    let pair = testing::two(|| app_with(&times, &gate), format!("redis://{}", redis.addr()));
    let (one, two) = pair.await;
    one.node().tasks().quiet(one.node().id()).await.unwrap();
    let (tasks, count) = (one.node().tasks(), setting("WAITS", 100));
    let (mut begun, mut answered) = (Vec::new(), Vec::new());
    for number in 0..count {
        let job = tasks.enqueue::<sum>(Sum { of: vec![number, 1], held: false }).await.unwrap();
        let enqueued = Instant::now();
        let status = tasks.wait(&job.id, SOON).await.unwrap();
        let now = Instant::now();
        assert_eq!(status.value::<Total>().unwrap().total, number + 1);
        assert_eq!(status.node.as_deref(), Some(two.node().id()));
        let (began, ended) = times.0.lock().unwrap()[&*job.id];
        begun.push(began.saturating_duration_since(enqueued));
        answered.push(now.saturating_duration_since(ended));
    }
    let (pickup, end) = (percentiles(begun), percentiles(answered));
    print(format_args!(
        "{count} jobs: from enqueue to begin {:.1?} and {:.1?}, from end to the result at another node {:.1?} and {:.1?} \
         (median, high percentile)",
        pickup.0, pickup.1, end.0, end.1
    ));
    check_time(
        "from the end to the result, high percentile, beyond the pick-up",
        end.1.saturating_sub(pickup.1),
        20 * MS,
    );
    drop((one, two));
}

const MS: Duration = Duration::from_millis(1);

/// The resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Each for a job of its own. 10,000 of them take `WAITERS=10000`, alone in their process for the memory.
#[tokio::test]
async fn many_callers_wait_at_once() {
    let (redis, gate) = (Redis::start().await, Gate(Arc::new(Semaphore::new(0))));
    let pair = testing::two(|| app_with(&Times::default(), &gate), format!("redis://{}", redis.addr()));
    let (one, two) = pair.await;
    one.node().tasks().quiet(one.node().id()).await.unwrap();
    let (tasks, count) = (one.node().tasks(), setting("WAITERS", 300));
    let inputs = (0..count).map(|number| Sum { of: vec![number], held: true });
    let ids = tasks.enqueue_many::<sum>(inputs, &EnqueueOptions::new()).await.unwrap();
    let before = resident();
    let waiting: Vec<_> = ids
        .iter()
        .map(|id| {
            let (tasks, id) = (tasks.clone(), id.clone());
            tokio::spawn(async move { tasks.wait(&id, 10 * SOON).await })
        })
        .collect();
    let channels = async || redis.command("PUBSUB CHANNELS *").await.matches(":wake:").count() as u64;
    super::eventually("all are subscribed", async || channels().await == count).await;
    let waiters = resident().saturating_sub(before);
    let opened = Instant::now();
    gate.0.add_permits(count as usize);
    for (number, waited) in join_all(waiting).await.into_iter().enumerate() {
        assert_eq!(waited.unwrap().unwrap().value::<Total>().unwrap().total, number as u64);
    }
    print(format_args!(
        "{count} callers that wait take {waiters} KiB; all had their results {:.1?} after the first job could end",
        opened.elapsed()
    ));
    super::eventually("none is left", async || channels().await == 0).await;
    drop((one, two));
}

#[input]
struct Size {
    bytes: usize,
}

/// Returns so much text.
#[task(tracked)]
async fn text(_ctx: TaskContext, input: Size) -> Result<String, ActionError> {
    Ok("x".repeat(input.bytes))
}

/// The caller learns the reason, and an operator how often.
#[tokio::test]
async fn a_result_that_is_too_large_is_counted() {
    let node = App::new("texts").tasks(tasks![text]).start(settings()).await.unwrap();
    let job = node.node().tasks().enqueue::<text>(Size { bytes: 70_000 }).await.unwrap();
    let status = node.node().tasks().wait(&job.id, SOON).await.unwrap();
    assert_eq!(status.value::<String>().unwrap_err().code(), "no_result");
    let metrics = String::from_utf8(get(node.admin_addr().unwrap(), "/metrics").await.body).unwrap();
    let sample = "phalanx_tasks_results_missing_total{task=\"text\",reason=\"too_large\"} 1";
    assert!(metrics.lines().any(|line| line == sample), "{metrics}");
}

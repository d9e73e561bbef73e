//! Jobs that do nothing, compared with the floor over the same Redis: a script that takes a job and notes it; and those of a queue
//! with a limit, compared with those of one without.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use phalanx::jobs::EnqueueOptions;
use phalanx::prelude::*;
use phalanx::{Node, RunningApp, Task, TaskDef};
use phalanx_testkit::Redis;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::Anyhow;
use crate::apply::TOKEN;
use crate::ceiling::queue::Worker;
use crate::compare::Effort;
use crate::report::{Measured, middle};
use crate::row::Row;

/// A limit for the jobs of a round.
const SOON: Duration = Duration::from_secs(60);

/// The bytes of text in the input of a job, with which the whole has some 150.
const TEXT: usize = 24;

const QUEUE: &str = "bench";

/// The jobs that are left, and who waits for the last one.
static LEFT: AtomicUsize = AtomicUsize::new(0);
static DONE: Notify = Notify::const_new();

#[input]
#[derive(Clone)]
struct Nothing {
    text: String,
}

/// Does nothing.
#[task(queue = "bench")]
async fn nothing(_ctx: TaskContext, _input: Nothing) -> Result<(), ActionError> {
    if LEFT.fetch_sub(1, SeqCst) == 1 {
        DONE.notify_one();
    }
    Ok(())
}

/// The same in a queue with a limit, which the slots reach.
#[task(queue = "bench", limit = 100)]
async fn limited(ctx: TaskContext, input: Nothing) -> Result<(), ActionError> {
    nothing(ctx, input).await
}

/// Measures one of the rows for jobs: `slots` at a time.
pub(crate) async fn measure(row: Row, slots: usize, effort: Effort) -> Result<Measured, Anyhow> {
    let redis = Redis::start().await;
    let is_synced = if row == Row::TasksSynced { "yes" } else { "no" };
    redis.command(&format!("CONFIG SET appendonly {is_synced} appendfsync always")).await;
    let app = start(&redis, slots, tasks![nothing]).await?;
    let node = app.node().clone();
    let count = effort.jobs(slots);
    node.tasks().pause(QUEUE).await?;
    fill::<nothing>(&node, count).await?;
    let job = node.tasks().waiting(QUEUE, 0, 1).await?.pop().ok_or("no job waits")?;
    let mut floor = Worker::connect(redis.addr(), job.to_vec()).await?;
    drain(&node, count).await?;
    floor.run(count, slots).await?;
    let (mut values, mut our_times, mut their_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        let (our, their);
        if round % 2 == 0 {
            our = ours::<nothing>(&node, count).await?;
            their = floor.run(count, slots).await?;
        } else {
            their = floor.run(count, slots).await?;
            our = ours::<nothing>(&node, count).await?;
        }
        values.push(our / their);
        our_times.push(our);
        their_times.push(their);
    }
    app.stop().await;
    Ok(Measured::median(row, Some((middle(&mut our_times), middle(&mut their_times))), values))
}

/// Measures the row for jobs of a queue with a limit. Each side has a Redis of its own, so that the node without the limit does not
/// know of it.
pub(crate) async fn measure_limited(slots: usize, effort: Effort) -> Result<Measured, Anyhow> {
    let stores = [Redis::start().await, Redis::start().await];
    for redis in &stores {
        redis.command("CONFIG SET appendonly no").await;
    }
    let apps = [start(&stores[0], slots, tasks![limited]).await?, start(&stores[1], slots, tasks![nothing]).await?];
    let [ours_node, their_node] = apps.each_ref().map(|app| app.node().clone());
    let count = effort.jobs(slots);
    for node in [&ours_node, &their_node] {
        node.tasks().pause(QUEUE).await?;
    }
    ours::<limited>(&ours_node, count).await?;
    ours::<nothing>(&their_node, count).await?;
    let (mut values, mut our_times, mut their_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        let (our, their);
        if round % 2 == 0 {
            our = ours::<limited>(&ours_node, count).await?;
            their = ours::<nothing>(&their_node, count).await?;
        } else {
            their = ours::<nothing>(&their_node, count).await?;
            our = ours::<limited>(&ours_node, count).await?;
        }
        values.push(our / their);
        our_times.push(our);
        their_times.push(their);
    }
    for app in apps {
        app.stop().await;
    }
    let sides = (middle(&mut our_times), middle(&mut their_times));
    Ok(Measured::median(Row::TasksLimited, Some(sides), values))
}

/// Starts a node in this process, whose attempts run on one thread.
async fn start(redis: &Redis, slots: usize, tasks: [TaskDef; 1]) -> Result<RunningApp, Anyhow> {
    let mut config = phalanx::config::Config::default();
    config.general.server_token = TOKEN.to_owned();
    config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.admin.bind = String::new();
    config.tasks.concurrency = slots;
    config.tasks.threads = 1;
    Ok(App::new("tour").tasks(tasks).start_in_cluster(config, &redis.url()).await?)
}

/// Enqueues jobs in the paused queue.
async fn fill<T: Task<Input = Nothing>>(node: &Node, count: usize) -> Result<(), Anyhow> {
    let job = Nothing { text: "x".repeat(TEXT) };
    node.tasks().enqueue_many::<T>(std::iter::repeat_n(job, count), &EnqueueOptions::new()).await?;
    Ok(())
}

/// The microseconds of a job, from the moment at which the queue is resumed.
async fn drain(node: &Node, count: usize) -> Result<f64, Anyhow> {
    LEFT.store(count, SeqCst);
    let started = Instant::now();
    node.tasks().resume(QUEUE).await?;
    timeout(SOON, DONE.notified()).await.map_err(|_| "a job did not run")?;
    let took = started.elapsed();
    node.tasks().pause(QUEUE).await?;
    Ok(took.as_secs_f64() * 1e6 / count as f64)
}

async fn ours<T: Task<Input = Nothing>>(node: &Node, count: usize) -> Result<f64, Anyhow> {
    fill::<T>(node, count).await?;
    drain(node, count).await
}

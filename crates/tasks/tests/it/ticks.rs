//! Nodes with periodic tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use phalanx_core::answer::{IntoAnswer, answering};
use phalanx_core::params::input_schema;
use phalanx_core::task::{CatchUp, Overlap, Schedule, TaskContext, TaskDef, TickRule, check_input};
use phalanx_core::{ActionError, NoInput, StartError};

use crate::faulty_store::FaultyStore;
use crate::harness::{Harness, Log, PLAIN, eventually};

/// The interval of the tasks, the shortest one.
const EVERY_MS: u64 = 100;

/// A task that logs the id and the tick of its job.
fn ticking(schedule: Schedule) -> TaskDef {
    TaskDef {
        name: "ticking",
        schedule: Some(schedule),
        input: input_schema::<NoInput>,
        check: check_input::<NoInput>,
        on_failed: None,
        run: |ctx, _body| answering(async move { log_tick(&TaskContext::of(&ctx)?)?.into_answer() }),
        ..PLAIN
    }
}

fn log_tick(ctx: &TaskContext) -> Result<(), ActionError> {
    let log = ctx.node().state::<Log>().ok_or_else(|| ActionError::internal("the tests have a log"))?;
    log.add(format!("{} {}", ctx.id(), ctx.tick_ms().unwrap_or(0)));
    Ok(())
}

fn every(overlap: Overlap, catch_up: CatchUp) -> TaskDef {
    ticking(Schedule { ticks: TickRule::Every(Duration::from_millis(EVERY_MS)), overlap, catch_up })
}

/// The ticks of a log, by their number.
fn ticks(entries: &[String]) -> Vec<u64> {
    let number = |entry: &String| {
        let (id, tick_ms) = entry.split_once(' ').unwrap();
        assert_eq!(id, format!("ticking@{tick_ms}"));
        let tick_ms: u64 = tick_ms.parse().unwrap();
        assert_eq!(tick_ms % EVERY_MS, 0);
        tick_ms / EVERY_MS
    };
    entries.iter().map(number).collect()
}

#[tokio::test]
async fn each_tick_runs_once_on_any_of_the_nodes() {
    let store = FaultyStore::new();
    let start = async || {
        let tasks = vec![every(Overlap::Allow, CatchUp::All)];
        Harness::start_tasks(tasks, |_| {}, Some(store.clone())).await.unwrap()
    };
    let nodes = [start().await, start().await, start().await];
    let all = || ticks(&nodes.iter().flat_map(|node| node.log.entries()).collect::<Vec<_>>());
    eventually("thirty ticks ran", async || all().len() >= 30).await;
    for node in &nodes {
        node.engine.stop().await;
    }
    let all = all();
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    let (first, last) = (distinct.first().unwrap(), distinct.last().unwrap());
    println!("{} ticks, {} runs", distinct.len(), all.len());
    assert_eq!((distinct.len(), all.len()), ((last - first + 1) as usize, distinct.len()), "{all:?}");
}

/// The store is away: the newest tick that was missed, all of them, or none.
#[tokio::test]
async fn ticks_that_were_missed_are_caught_up_with() {
    for (overlap, catch_up) in [(Overlap::Skip, CatchUp::Last), (Overlap::Allow, CatchUp::All)] {
        let store = FaultyStore::new();
        let node = Harness::start_tasks(vec![every(overlap, catch_up)], |_| {}, Some(store.clone())).await.unwrap();
        eventually("it ticks", async || node.log.entries().len() >= 2).await;
        store.loses_ticks.store(true, SeqCst);
        let missed = node.engine.clock().now_ms() + 10 * EVERY_MS;
        eventually("ten ticks are missed", async || node.engine.clock().now_ms() > missed).await;
        let before = ticks(&node.log.entries());
        store.loses_ticks.store(false, SeqCst);
        eventually("it ticks again", async || node.log.entries().len() >= before.len() + 12).await;
        node.engine.stop().await;
        let mut after = ticks(&node.log.entries());
        println!("{catch_up:?}: {before:?}, then {:?}", &after[before.len()..]);
        after.sort_unstable(); // attempts run beside each other
        let gaps = after.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(after.is_sorted_by(|a, b| a < b), "{after:?}");
        match catch_up {
            CatchUp::All => assert_eq!(gaps, 0, "{after:?}"),
            CatchUp::Last | CatchUp::None => assert!(gaps >= 1, "{after:?}"),
        }
    }
}

/// A weekend without workers.
#[tokio::test]
async fn without_workers_one_tick_waits() {
    let store = FaultyStore::new();
    let tasks = || vec![every(Overlap::Skip, CatchUp::Last)];
    let idle = Harness::start_tasks(tasks(), |config| config.tasks.concurrency = 0, Some(store.clone())).await.unwrap();
    let waiting = async || idle.node.tasks().waiting("default", 0, 9).await.unwrap();
    eventually("a tick waits", async || waiting().await.len() == 1).await;
    let first = waiting().await;
    let last = || idle.engine.clock().now_ms() / EVERY_MS;
    let end = last() + 10;
    eventually("ten more are due", async || last() > end).await;
    assert_eq!(waiting().await, first);
    let worker = Harness::start_tasks(tasks(), |_| {}, Some(store)).await.unwrap();
    eventually("they go on", async || worker.log.entries().len() >= 3).await;
    let ran = ticks(&worker.log.entries());
    assert!(ran[1] >= end - 1, "the ticks between were skipped: {ran:?}");
    idle.engine.stop().await;
    worker.engine.stop().await;
}

#[tokio::test]
async fn the_boot_refuses_a_schedule_that_cannot_be_by_the_name_of_its_task() {
    let cron = |line, timezone| {
        let ticks = TickRule::Cron { line, timezone };
        ticking(Schedule { ticks, overlap: Overlap::Skip, catch_up: CatchUp::Last })
    };
    for (task, part) in [
        (cron("0 0 30 2 *", "UTC"), "task \"ticking\": cron = \"0 0 30 2 *\": it never comes"),
        (cron("* * * * * *", "UTC"), "task \"ticking\": cron = \"* * * * * *\": five fields"),
        (cron("0 3 * * *", "Mars/Olympus"), "task \"ticking\": timezone = \"Mars/Olympus\""),
        (
            TaskDef { check: PLAIN.check, ..cron("0 3 * * *", "UTC") },
            "its ticks have no input: give ends, name a default",
        ),
    ] {
        let error = Harness::start_tasks(vec![task], |_| {}, None).await.err().unwrap();
        assert!(matches!(error, StartError::Definitions(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let store: Arc<FaultyStore> = FaultyStore::new();
    let sound = Harness::start_tasks(vec![cron("0 3 * * *", "Europe/Berlin")], |_| {}, Some(store)).await.unwrap();
    sound.engine.stop().await;
}

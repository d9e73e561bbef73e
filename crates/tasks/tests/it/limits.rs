//! Queues with a limit on a node or in the cluster, and with weights.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::backend::JobState;
use phalanx_core::task::{EnqueueOptions, Task};
use tokio::time::Instant;

use crate::harness::{Harness, Limited, Paced, Plain, eventually, work};

async fn start(queues: &[&str], concurrency: usize) -> Harness {
    let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
    Harness::start_with(
        |config| {
            config.tasks.queues = queues;
            config.tasks.concurrency = concurrency;
        },
        None,
    )
    .await
}

async fn enqueue(harness: &Harness, queue: &str, ends: &[&str], count: usize) -> Vec<std::sync::Arc<str>> {
    let inputs: Vec<_> = (0..count).map(|_| work(queue, ends)).collect();
    let options = EnqueueOptions::new().queue(queue);
    harness.node.tasks().enqueue_many::<Plain>(inputs, &options).await.unwrap()
}

#[tokio::test]
async fn a_node_runs_no_more_jobs_of_a_queue_than_its_limit() {
    let harness = start(&["few concurrency=2", "many"], 6).await;
    let mut jobs = enqueue(&harness, "few", &["wait"; 8], 8).await;
    jobs.extend(enqueue(&harness, "many", &["wait"; 12], 12).await);
    let running = async || {
        let mut queues = BTreeMap::new();
        for attempt in harness.node.tasks().running(0, 100).await.unwrap() {
            *queues.entry(attempt.queue.to_string()).or_insert(0) += 1;
        }
        queues
    };
    let expected: BTreeMap<String, i32> = [("few".to_owned(), 2), ("many".to_owned(), 4)].into();
    // Until fewer than two of the first queue, or four of the other, may be left.
    for ended in 0..=6 {
        eventually("the slots are full", async || running().await.values().sum::<i32>() == 6).await;
        assert_eq!(running().await, expected);
        harness.log.go_on.add_permits(1);
        eventually("one ends", async || harness.node.tasks().stats().await.unwrap().processed == ended + 1).await;
    }
    harness.log.go_on.add_permits(13);
    for job in jobs {
        harness.until_state(&job, JobState::Done).await;
    }
}

#[tokio::test]
async fn neighbours_with_weights_take_turns_by_them() {
    let harness = start(&["often weight=3", "seldom weight=1"], 1).await;
    harness.node.tasks().quiet("node").await.unwrap();
    for queue in ["often", "seldom"] {
        enqueue(&harness, queue, &[], 300).await;
    }
    harness.node.tasks().end_quiet("node").await.unwrap();
    eventually("200 have run", async || harness.log.entries().len() >= 200).await;
    let often = harness.log.entries()[..200].iter().filter(|entry| entry.starts_with("often")).count();
    println!("{often} of 200 jobs were of the queue with three of four turns");
    assert!((110..=190).contains(&often), "{often}"); // 6.5 standard deviations around 150
}

/// A second is the time after which a node looks without a reason.
const AT_ONCE: Duration = Duration::from_millis(900);

#[tokio::test]
async fn the_end_of_a_job_makes_room_for_one_at_a_limit_of_the_cluster() {
    let harness = Harness::start_tasks(vec![Plain::DEF, Limited::DEF], |_| {}, None).await.unwrap();
    let mut jobs = Vec::new();
    for number in 0..6 {
        jobs.push(harness.enqueue::<Limited>(&format!("limited {number}"), &["wait"]).await);
    }
    let free = harness.enqueue::<Plain>("plain", &[]).await;
    harness.until_state(&free, JobState::Done).await;
    for waiting in 2..=6 {
        let began = Instant::now();
        harness.until_waiting(waiting).await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert!(harness.node.tasks().stats().await.unwrap().running <= 2);
        harness.log.go_on.add_permits(1);
    }
    harness.log.go_on.add_permits(2);
    for job in jobs {
        harness.until_state(&job, JobState::Done).await;
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn jobs_begin_as_their_rate_permits_without_a_wake_up() {
    let harness = Harness::start_tasks(vec![Paced::DEF], |_| {}, None).await.unwrap();
    let inputs: Vec<_> = (0..25).map(|_| work("paced", &[])).collect();
    let began = Instant::now();
    harness.node.tasks().enqueue_many::<Paced>(inputs, &EnqueueOptions::new()).await.unwrap();
    eventually("all have run", async || harness.node.tasks().stats().await.unwrap().processed == 25).await;
    let took = began.elapsed();
    println!("25 jobs of 100 a second took {took:?}, five of them together");
    assert!(took >= Duration::from_millis(190) && took < AT_ONCE * 2, "{took:?}");
    harness.engine.stop().await;
}

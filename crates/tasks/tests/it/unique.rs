//! Jobs that are unique until an attempt begins.

use std::sync::atomic::Ordering::SeqCst;

use phalanx_core::backend::JobState;
use phalanx_core::task::{EnqueueOptions, Enqueued, UniqueUntil};

use crate::faulty_store::FaultyStore;
use crate::harness::{Harness, Plain, Refresh, work};

async fn refresh(harness: &Harness, name: &str, ends: &[&str]) -> Enqueued {
    harness.node.tasks().enqueue::<Refresh>(work(name, ends)).await.unwrap()
}

#[tokio::test]
async fn a_job_that_runs_gives_way_to_one_that_waits() {
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, None).await;
    let first = refresh(&harness, "a", &["wait", "wait"]).await;
    harness.until_waiting(1).await;
    let second = refresh(&harness, "a", &[]).await;
    assert!(first.enqueued && second.enqueued, "the first one runs");
    let third = refresh(&harness, "a", &["error"]).await;
    assert_eq!((third.enqueued, &third.id), (false, &second.id), "the second one waits");
    assert!(refresh(&harness, "b", &[]).await.enqueued, "another key");
    harness.log.go_on.add_permits(2);
    harness.until_state(&second.id, JobState::Done).await;
    assert!(refresh(&harness, "a", &[]).await.enqueued);
    harness.engine.stop().await;
}

#[tokio::test]
async fn the_key_is_released_before_the_function_begins() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    store.refused_releases.store(1, SeqCst);
    let first = refresh(&harness, "a", &["wait"]).await;
    harness.until_waiting(1).await;
    assert!(store.refused_releases.load(SeqCst) == 0 && refresh(&harness, "a", &["wait"]).await.enqueued);
    assert_eq!(harness.log.entries()[0], "a 1", "the attempt that could not begin does not count");
    harness.log.go_on.add_permits(2);
    harness.until_state(&first.id, JobState::Done).await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn an_enqueue_says_until_when_its_key_is_unique() {
    let harness = Harness::start().await;
    let plain = async |until| {
        let options = EnqueueOptions::new().unique("k").unique_until(until);
        harness.node.tasks().enqueue_with::<Plain>(work("a", &["wait", "wait", "wait"]), options).await.unwrap()
    };
    assert!(plain(UniqueUntil::Start).await.enqueued);
    harness.until_waiting(1).await;
    let second = plain(UniqueUntil::End).await;
    assert!(second.enqueued);
    harness.until_waiting(2).await;
    let third = plain(UniqueUntil::Start).await;
    assert_eq!((third.enqueued, &third.id), (false, &second.id));
    harness.log.go_on.add_permits(2);
    harness.engine.stop().await;
}

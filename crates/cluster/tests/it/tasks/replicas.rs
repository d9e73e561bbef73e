//! Enqueues that wait for replicas.

use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{Keys, RedisClient, RedisTasks};
use phalanx_core::ActionError;
use phalanx_core::backend::{BackendError, EnqueueOutcome, NewJob, TaskStore};
use phalanx_testkit::laws::tasks::{LawWorker, job};
use phalanx_testkit::{Redis, print};
use tokio::time::Instant;

use crate::switch_over::replicate;

const NEVER_US: u64 = u64::MAX / 4;

fn store(primary: &Redis) -> Arc<dyn TaskStore> {
    let client = RedisClient::open(&primary.url(), Duration::from_millis(4000)).unwrap();
    Arc::new(RedisTasks::new(&client, Keys::new("actionhero:", "laws"), "n", 100).confirmed_by(1))
}

fn with_id(id: &str) -> NewJob {
    NewJob { digest: Some([1; 16]), ..job(id) }
}

#[tokio::test]
async fn an_enqueue_is_answered_when_a_replica_has_the_job() {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    super::prepare(&primary).await;
    let store = store(&primary);
    // Without the right to wait, and without a replica.
    let refused = store.enqueue(&[with_id("a")], NEVER_US).await.unwrap_err();
    assert!(matches!(refused, BackendError::NotReplicated { confirmed: 0, wanted: 1 }), "it is stored: {refused}");
    primary.command("ACL SETUSER phalanx +wait").await;
    let alone = store.enqueue(&[with_id("a")], NEVER_US).await.unwrap_err();
    assert!(matches!(alone, BackendError::NotReplicated { confirmed: 0, wanted: 1 }), "{alone}");
    assert_eq!(ActionError::from(alone).code(), "not_replicated");
    replicate(&replica, &primary).await;
    // Each of them, at the moment when it is answered.
    let began = Instant::now();
    for number in 0..200 {
        let id = number.to_string();
        assert_eq!(store.enqueue(&[with_id(&id)], NEVER_US).await.unwrap(), [EnqueueOutcome::Stored]);
        let there = replica.command("LLEN resque:queue:q").await;
        assert_eq!(there, format!(":{}\r\n", number + 2), "and the one that was not confirmed");
    }
    print(format_args!("an enqueue with one replica took {:?}", began.elapsed() / 200));
    assert_eq!(LawWorker::new(&store, 0).fetch(1).await.len(), 1);
}

/// A repeat finds the job there, and is answered only when that is replicated.
#[tokio::test]
async fn an_enqueue_that_no_replica_confirms_is_an_error_and_may_be_repeated() {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    super::prepare(&primary).await;
    primary.command("ACL SETUSER phalanx +wait").await;
    replicate(&replica, &primary).await;
    let of_other_node = store(&primary);
    let store = store(&primary);
    replica.freeze();
    for enqueuer in [&store, &of_other_node] {
        let error = enqueuer.enqueue(&[with_id("a")], NEVER_US).await.unwrap_err();
        assert!(matches!(error, BackendError::NotReplicated { confirmed: 0, wanted: 1 }), "{error}");
        assert_eq!(primary.command("LLEN resque:queue:q").await, ":1\r\n", "it is stored, once");
    }
    // Fetches do not wait for replicas.
    let worker = LawWorker::new(&store, 0);
    let jobs = [with_id("b")];
    let mut waiting = store.enqueue(&jobs, NEVER_US);
    tokio::select! {
        answer = &mut waiting => panic!("{answer:?} after half of the timeout"),
        fetched = worker.fetch(1) => assert_eq!(fetched.len(), 1),
    }
    assert!(matches!(waiting.await, Err(BackendError::NotReplicated { .. })));
    replica.thaw();
    for enqueuer in [&store, &of_other_node] {
        assert_eq!(enqueuer.enqueue(&[with_id("a")], NEVER_US).await.unwrap(), [EnqueueOutcome::Existing("a".into())]);
    }
    assert!(replica.command("LRANGE resque:queue:q 0 -1").await.contains("\"b\""));
}

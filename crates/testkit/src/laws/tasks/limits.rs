//! Laws of limits of queues.

use phalanx_core::backend::{AttemptEnd, NewJob, Settlement};

use super::{LawWorker, SharedTasks, enqueue, ids_of, job, nodes, settlement};

/// Whichever of its jobs those are: fresh, retried, or suspected to kill nodes. Other queues fill the rest.
pub async fn no_more_jobs_of_a_queue_are_fetched_than_its_limit(store: SharedTasks) {
    let of = |id: &str, queue: &str| NewJob { queue: queue.into(), ..job(id) };
    enqueue(&store, &["a", "b", "c", "d", "e"].map(|id| of(id, "few"))).await;
    enqueue(&store, &["x", "y", "z"].map(|id| of(id, "many"))).await;
    let worker = LawWorker::serving(&store, nodes()[0], &["few", "many"]);
    const LIMITS: &[usize] = &[2, usize::MAX];
    let reply = worker.call(&[], 9, |call| call.limits = LIMITS).await;
    assert_eq!(ids_of(&reply.fetched), ["a", "b", "x", "y", "z"]);
    assert!(reply.has_more, "three are left");
    let ends: Vec<Settlement> =
        reply.fetched.iter().map(|job| settlement(job, AttemptEnd::Retry { due_ms: 0 })).collect();
    let reply = worker.call(&ends, 9, |call| call.limits = &[3, 1]).await;
    let queues: Vec<&str> = reply.fetched.iter().map(|job| &*job.attempt.queue).collect();
    assert_eq!(queues, ["few", "few", "few", "many"], "{:?}", reply.fetched);
    let reply = worker.call(&[], 1, |call| call.limits = LIMITS).await;
    assert_eq!(reply.fetched.len(), 1, "nor more than are wanted");
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!(reply.fetched.len(), 3, "without limits all that are left");
}

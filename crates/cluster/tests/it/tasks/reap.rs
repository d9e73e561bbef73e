//! Attempts of nodes that died, that stopped, or that were reaped by a node which knows no tasks.

use std::sync::Arc;

use phalanx_cluster::RedisTasks;
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptEnd, GiveBackOutcome, LeaveBatch, Membership, NodeRecord, SettleOutcome, TaskStore,
};
use phalanx_core::job::FailedJob;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job};

use crate::membership::TestCluster;

async fn cluster() -> (TestCluster, Arc<dyn TaskStore>) {
    let (redis, client, keys) = crate::redis().await;
    let tasks: Arc<dyn TaskStore> = Arc::new(RedisTasks::new(&client, keys.clone(), "n", 100));
    (TestCluster::over(redis, client, keys).await, tasks)
}

/// Runs two jobs on a node.
async fn run(tasks: &Arc<dyn TaskStore>, node: &NodeRecord) -> LawWorker {
    let worker = LawWorker::serving(tasks, node.generation, &["q"]);
    enqueue(tasks, &["a", "b"].map(job)).await;
    assert_eq!(worker.fetch(2).await.len(), 2);
    worker
}

#[tokio::test]
async fn a_reap_ends_when_the_jobs_are_given_back() {
    let (cluster, tasks) = cluster().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let dead = run(&tasks, &other).await;
    let listed = tasks.attempts(other.generation).await.unwrap();
    let (by, of) = (one.generation, other.generation);
    assert_eq!(tasks.give_back(by, of, "w").await.unwrap(), GiveBackOutcome::ClaimLost, "without a claim");
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let reply = dead.call(&[], 5, |_| {}).await;
    assert!(reply.is_reaped && reply.fetched.is_empty());
    assert_eq!(cluster.membership.next_leaves(by, of).await.unwrap(), LeaveBatch::ClaimLost, "jobs are left");
    assert!(cluster.membership.renew_claim(by, of).await.unwrap(), "but the claim stands");
    assert_eq!(tasks.give_back(by, of, "w").await.unwrap(), GiveBackOutcome::Some(vec![]));
    assert_eq!(tasks.give_back(by, of, "w").await.unwrap(), GiveBackOutcome::Done);
    assert_eq!(cluster.membership.next_leaves(by, of).await.unwrap(), LeaveBatch::Done);
    assert_eq!(dead.settle(&listed[0], AttemptEnd::Done).await, SettleOutcome::Superseded);
    assert_eq!(tasks.waiting("q", 0, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_that_stops_with_attempts_listed_is_reaped_at_once() {
    let (cluster, tasks) = cluster().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    run(&tasks, &other).await;
    cluster.membership.leave(other.generation).await.unwrap();
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let given_back = tasks.give_back(one.generation, other.generation, "w").await.unwrap();
    assert_eq!(given_back, GiveBackOutcome::Some(vec![]));
    // A node without any leaves nothing to reap.
    cluster.membership.leave(one.generation).await.unwrap();
    assert_eq!(cluster.redis.command(&format!("ZSCORE phalanx:laws:leases {}", one.generation)).await, "$-1\r\n");
}

#[tokio::test]
async fn attempts_without_a_lease_and_without_a_claim_are_claimed() {
    let (cluster, tasks) = cluster().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    run(&tasks, &other).await;
    // A node of an earlier release reaped it, and left its attempts.
    let (of, ago) = (other.generation, 1);
    cluster.redis.command(&format!("ZREM phalanx:laws:leases {of}")).await;
    cluster.redis.command(&format!("ZADD phalanx:laws:runners {ago} {of} {ago} {}", Generation::random())).await;
    LawWorker::serving(&tasks, one.generation, &["q"]).fetch(1).await;
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let given_back = tasks.give_back(one.generation, of, "w").await.unwrap();
    assert_eq!(given_back, GiveBackOutcome::Some(vec![]));
    assert_eq!(
        cluster.redis.command("ZCARD phalanx:laws:runners").await,
        ":2\r\n",
        "one that never ran any is forgotten"
    );
}

#[tokio::test]
async fn attempts_move_to_the_name_that_a_node_has_now() {
    let (cluster, tasks) = cluster().await;
    let mut node = cluster.node().await;
    run(&tasks, &node).await;
    let (before, attempts) = (node.generation, tasks.attempts(node.generation).await.unwrap());
    node.earlier.push(before);
    node.generation = Generation::random();
    cluster.membership.register(&node, false).await.unwrap();
    tasks.list_again(node.generation, &attempts[..1], &[], &[]).await.unwrap();
    assert_eq!(tasks.attempts(node.generation).await.unwrap(), attempts[..1]);
    assert_eq!(tasks.attempts(before).await.unwrap(), attempts[1..], "the rest is the reaper's");
    tasks.list_again(Generation::random(), &attempts, &[], &[]).await.unwrap_err();
}

/// Those of a job that neither died nor came back yet count as deaths; the next reap sets them right.
#[tokio::test]
async fn a_death_that_was_a_stall_is_one_before_it_convicts() {
    let (cluster, tasks) = cluster().await;
    let reaper = cluster.node().await;
    enqueue(&tasks, &["a", "b"].map(job)).await;
    let mut nodes = Vec::new();
    for reap in 0..5 {
        let node = cluster.node().await;
        let fetched = LawWorker::serving(&tasks, node.generation, &["q"]).fetch(1).await;
        assert!(fetched[0].text.ends_with(br#""id":"a"}"#), "it is the next one each time");
        cluster.redis.command(&format!("ZADD phalanx:laws:leases XX 1 {}", node.generation)).await;
        assert!(cluster.claim(&reaper, &node).await);
        nodes.push(node.generation);
        if reap == 3 {
            tasks.came_back(nodes[0]).await.unwrap(); // while the job runs on the last one
            tasks.came_back(nodes[0]).await.unwrap();
        }
        let given_back = tasks.give_back(reaper.generation, node.generation, "w").await.unwrap();
        // After the return of two nodes the third one that died is the last.
        let GiveBackOutcome::Some(convicted) = given_back else { panic!("{given_back:?}") };
        assert_eq!(convicted.len(), usize::from(reap == 4), "{reap} {convicted:?}");
        if reap == 1 {
            tasks.came_back(nodes[1]).await.unwrap();
        }
    }
    let record = FailedJob::read(&tasks.failed(0, 1).await.unwrap()[0]);
    assert_eq!((record.exception.as_str(), record.counters.deaths, record.counters.stalls), ("poison", 3, 2));
}

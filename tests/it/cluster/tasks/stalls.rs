//! A job whose nodes stand still, and come back after other nodes have taken them for dead.

use phalanx_testkit::print;
use serde_json::json;
use tokio::time::Instant;

use super::super::{SOON, until};
use super::harness::JobCluster;
use crate::client::get;

/// Each node comes back before the next one is reaped, so no death is left when the fifth stands still.
#[tokio::test]
async fn a_job_that_freezes_its_nodes_fails_as_stalled() {
    let mut cluster = JobCluster::start(2, &[]).await;
    cluster.push("freezer", 1, "crash", &json!({ "afterMs": 3_600_000 })).await;
    let began = Instant::now();
    for stall in 1..=5 {
        let mut at = None;
        until("it runs", SOON, async || {
            for worker in 0..2 {
                if !cluster.listed(&cluster.workers[worker].generation).await.is_empty() {
                    at = Some(worker);
                }
            }
            at.is_some() && cluster.journal.begun(stall).len() == 1
        })
        .await;
        let frozen = at.unwrap();
        let before = cluster.workers[frozen].generation.clone();
        cluster.workers[frozen].process.freeze();
        until("it is given back, or fails", SOON, async || cluster.listed(&before).await.is_empty()).await;
        cluster.workers[frozen].process.thaw();
        until("the node has another name", SOON, async || {
            cluster.rename().await;
            cluster.workers[frozen].generation != before
        })
        .await;
        let returned = format!("EXISTS phalanx:tour:returned:{before}");
        until("its return is known", SOON, async || cluster.number(&returned).await == 1).await;
    }
    until("it failed", SOON, async || cluster.failed().await == [("freezer0".to_owned(), "stalled".to_owned())]).await;
    print(format_args!("a job that freezes its nodes failed as stalled after {:.0?}", began.elapsed()));
    let addr = cluster.addr(0);
    let expected = json!(["freezer0: five nodes stood still or died while they ran it"]);
    until("its on_failed runs", SOON, async || get(addr, "/api/lists/failures").await.json()["values"] == expected)
        .await;
    let jobs = cluster.journal.read();
    assert_eq!(jobs["freezer0"].runs.len(), 5, "{jobs:?}");
    cluster.until_nothing_is_left().await;
}

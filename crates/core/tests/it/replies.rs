//! Replies to the calls of other nodes.

use phalanx_core::backend::{NodeMessage, NodeMessageKind};

use crate::harness::{Harness, LeaveLog, eventually};

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_until_its_replies_are_sent() {
    let harness = Harness::start(LeaveLog::default()).await;
    let payload = r#"{"connection":"unknown","method":"details"}"#.into();
    let deadline_ms = Some(harness.node.now_ms() + 60_000);
    harness.backend.receive(NodeMessage { kind: NodeMessageKind::Call, id: 1, deadline_ms, payload }).await;
    eventually("it replies", async || harness.backend.unsent() == 1).await;
    let stopping = tokio::spawn({
        let engine = harness.engine.clone();
        async move { engine.stop().await }
    });
    eventually("it stops", async || !harness.node.health().is_empty()).await;
    eventually("it waits for the reply", async || harness.engine.shutdown().running() == 1).await;
    assert!(!stopping.is_finished());
    harness.backend.send_all();
    assert_eq!(stopping.await.unwrap().abandoned, 0);
}

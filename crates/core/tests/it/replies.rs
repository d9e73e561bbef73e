//! Answers to the calls of other nodes.

use phalanx_core::backend::{Letter, LetterKind};

use crate::harness::{Noted, World, eventually};

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_until_its_answers_are_sent() {
    let world = World::start(Noted::default()).await;
    let payload = r#"{"connection":"nobody","method":"details"}"#.into();
    let deadline_ms = Some(world.node.now_ms() + 60_000);
    world.backend.brings(Letter { kind: LetterKind::Call, id: 1, deadline_ms, payload }).await;
    eventually("it answers", async || world.backend.unsent() == 1).await;
    let stopping = tokio::spawn({
        let node = world.node.clone();
        async move { node.stop().await }
    });
    eventually("it stops", async || !world.node.health().is_empty()).await;
    eventually("it waits for one", async || world.node.shutdown().running() == 1).await;
    assert!(!stopping.is_finished());
    world.backend.sends();
    assert_eq!(stopping.await.unwrap().abandoned, 0);
}

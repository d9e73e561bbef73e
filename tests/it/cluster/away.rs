//! A Redis that is away, full or refuses: what operators and clients are told.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use phalanx_testkit::Redis;
use serde_json::json;
use tokio::time::Instant;

use super::{BACK, SOON, config, until};
use crate::client::{Socket, get};

#[tokio::test]
async fn a_node_that_lost_its_lease_is_not_ready_unless_it_needs_no_cluster() {
    let redis = Redis::start().await;
    let start = async |id: &str, needs_cluster| {
        let mut config = config(id);
        config.admin.bind = "127.0.0.1:0".to_owned();
        config.admin.ready_needs_cluster = needs_cluster;
        App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
    };
    let (node, lenient) = (start("node", true).await, start("lenient", false).await);
    let ready = async |of: &RunningApp| get(of.admin_addr().unwrap(), "/readyz").await;
    assert_eq!(ready(&node).await.status, 200);
    redis.freeze();
    let frozen = Instant::now();
    until("the node is not ready", SOON, async || ready(&node).await.status == 503).await;
    assert!(frozen.elapsed() > Duration::from_secs(2), "a short stall costs nothing: {:?}", frozen.elapsed());
    assert_eq!(ready(&node).await.json(), json!({ "ready": false, "problems": ["not in the cluster"] }));
    assert_eq!(get(node.admin_addr().unwrap(), "/livez").await.status, 200, "nothing should restart it");
    until("the other lost its lease too", SOON, async || lenient.node().is_fenced()).await;
    assert_eq!(ready(&lenient).await.status, 200);
    redis.thaw();
    until("the node is ready again", BACK, async || ready(&node).await.status == 200).await;
    tokio::join!(node.stop(), lenient.stop());
}

/// Writes to the cache when a member leaves.
struct Farewell;

#[async_trait]
impl RoomHook for Farewell {
    async fn before_leave(&self, node: &Node, _room: &str, _connection: &Connection) -> Result<(), ActionError> {
        node.cache().save("last_leave", &"x".repeat(1000), None).await
    }
}

#[tokio::test]
async fn a_hook_that_fails_on_a_full_redis_is_named_as_the_cause() {
    let redis = Redis::start().await;
    let mut config = config("node");
    config.rooms.start = vec!["den".to_owned()];
    let node = App::new("tour").on_room(Farewell).start_in_cluster(config, &redis.url()).await.unwrap();
    let mut socket = Socket::join(node.addr(), "den").await;
    redis.command("CONFIG SET maxmemory 1").await;
    let refused = socket.request(r#"{"event":"roomLeave","room":"den"}"#).await;
    let message = "the before_leave hook failed: the backend is full, nothing was stored";
    assert_eq!(refused["error"], json!({ "code": "unavailable", "message": message }));
    redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(socket.request(r#"{"event":"roomLeave","room":"den"}"#).await["status"], "OK");
    node.stop().await;
}

//! Writes that arrive at Redis after the node has given them up.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use phalanx::prelude::*;
use phalanx_testkit::{Proxy, Redis, print};
use serde_json::json;
use tokio::time::Instant;

use super::{SOON, config, until};
use crate::client::Socket;

/// A connection of the node delivers what it has sent only after the node has replaced it, and its client has gone.
#[tokio::test]
async fn a_join_that_arrives_after_its_client_has_gone_lists_no_member() {
    let redis = Redis::start().await;
    let proxy = Arc::new(Proxy::before(redis.addr()).await);
    let is_armed = Arc::new(AtomicBool::new(false));
    let (of_hook, armed) = (proxy.clone(), is_armed.clone());
    // Holds the connections to Redis between the look at the room and the join, once it is armed.
    let app = App::new("tour").before_join(move |_| {
        if armed.swap(false, Relaxed) {
            of_hook.hold();
        }
        ready(Ok(()))
    });
    let node = app.start_in_cluster(config("one"), &redis.url_through(proxy.addr())).await.unwrap();
    node.node().rooms().create("lobby").await.unwrap();
    let first = Socket::join(node.addr(), "lobby").await; // the room is subscribed to
    let mut stays = Socket::connect(node.addr()).await;
    let join = json!({ "event": "roomAdd", "room": "lobby", "messageId": "join" });
    let (ghost_id, held) = loop {
        let mut ghost = Socket::connect(node.addr()).await;
        is_armed.store(true, Relaxed);
        let held = Instant::now();
        let answer = ghost.request_by_id(&join).await;
        let id = ghost.id();
        ghost.close().await;
        if answer["error"]["code"] == "unavailable" {
            break (id, held);
        }
        // On a busy machine the node may have replaced its connection between the hook and the join: nothing was held.
        assert!(answer["status"] == "OK" && held.elapsed() < SOON, "{answer}");
        proxy.release();
    };
    until("it is gone", SOON, async || node.node().connections().count() == 2).await;
    let floor = format!("EXISTS phalanx:tour:floor:{}", node.node().generation());
    until("the join is undone", SOON, async || redis.command(&floor).await == ":1\r\n").await;
    let joined = stays.request_by_id(&join).await;
    assert_eq!(joined["status"], "OK", "{joined}");
    print(format_args!("a join arrives {:?} late", held.elapsed()));
    // From here on the log of slow commands has every command, and the join is the only one that names the connection.
    for command in ["CONFIG SET slowlog-max-len 1000", "CONFIG SET slowlog-log-slower-than 0", "SLOWLOG RESET"] {
        redis.command(command).await;
    }
    proxy.release();
    until("the join arrives", SOON, async || redis.command("SLOWLOG GET 1000").await.contains(&ghost_id)).await;
    let generation = node.node().generation();
    for key in ["actionhero:chatRoom:members:lobby".to_owned(), format!("phalanx:tour:held:{generation}")] {
        assert_eq!(redis.command(&format!("HLEN {key}")).await, ":2\r\n", "{key}");
    }
    drop((first, stays));
    node.stop().await;
}

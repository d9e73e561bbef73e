//! Recovery from a fault that is interrupted by another fault.

use std::time::Duration;

use phalanx::event::Event;
use phalanx::prelude::*;
use phalanx_testkit::{Process, Proxy, Redis};
use serde_json::json;

use super::in_process::node;
use super::node_death::{next_presence, observe};
use super::{BACK, PRESENCE, SOON, apply, config, members, start_node, until};
use crate::client::{Socket, get};

/// A node that was cut off from Redis until it was reaped, so that its member's leave was announced on the other node.
struct Harness {
    redis: Redis,
    proxy: Proxy,
    near: Process,
    far: Process,
    one: Socket,
    other: Socket,
}

impl Harness {
    async fn new() -> Self {
        let redis = Redis::start().await;
        let proxy = Proxy::before(redis.addr()).await;
        let near = start_node(&redis.url(), "near").await;
        // A reply that is swallowed is taken for that to the next command. So this node sends none beside its registration:
        // it runs no jobs.
        let url = redis.url_through(proxy.addr());
        let environment = [
            ("REDIS_URL", &*url),
            ("PHALANX_TITLE", "far"),
            ("PHALANX__ROOMS__PRESENCE", PRESENCE),
            ("TOUR_WORKERS", "0"),
        ];
        let far = Process::start("tour", &environment).await;
        let mut one = observe(near.addr).await;
        let mut other = Socket::connect(far.addr).await;
        for room in ["otherRoom", "defaultRoom"] {
            other.request_by_id(&json!({ "event": "roomAdd", "room": room, "messageId": room })).await;
        }
        proxy.cut();
        assert_eq!(next_presence(&mut one, "leave").await, other.id());
        Self { redis, proxy, near, far, one, other }
    }

    async fn until_redis_says(&self, command: &str, expected: &str) {
        until(command, BACK, async || self.redis.command(command).await == expected).await;
    }
}

#[tokio::test]
async fn a_node_whose_registration_is_not_answered_still_lists_its_members() {
    let mut harness = Harness::new().await;
    let epoch = harness.redis.command("GET phalanx:tour:life").await;
    let epoch = epoch.lines().nth(1).unwrap();
    harness.proxy.swallow(epoch);
    harness.proxy.restore();
    harness.until_redis_says("ZCARD phalanx:tour:leases", ":2\r\n").await;
    let timeouts = || harness.far.stderr().matches("the node is not registered").count();
    let before = timeouts();
    harness.proxy.cut();
    until("the registration times out", SOON, async || timeouts() > before).await;
    harness.proxy.restore();
    assert_eq!(next_presence(&mut harness.one, "join").await, harness.other.id());
    assert_eq!(members(harness.near.addr, "otherRoom").await, 1);
    // Its inbox is on another connection than its list, and may be back later.
    let id = harness.other.id();
    until("calls reach it", BACK, async || apply(harness.near.addr, &id, "set", json!(["k", 1])).await.status == 200)
        .await;
}

#[tokio::test]
async fn a_member_that_leaves_while_its_node_relists_it_is_unlisted() {
    let Harness { redis: _redis, proxy, near, far, one: _one, mut other } = Harness::new().await;
    proxy.swallow("$3\r\nnew\r\n"); // the reply that the first room lists it again
    proxy.restore();
    until("it is relisted", BACK, async || members(near.addr, "otherRoom").await == 1).await;
    proxy.cut();
    other.close().await;
    until("the node has removed the connection", SOON, async || {
        String::from_utf8(get(far.admin, "/metrics").await.body).unwrap().contains("\nphalanx_connections 0\n")
    })
    .await;
    proxy.restore();
    until("no member is listed", BACK, async || members(near.addr, "otherRoom").await == 0).await;
}

#[tokio::test]
async fn a_corrupt_room_keeps_no_other_from_being_relisted() {
    let mut harness = Harness::new().await;
    harness.redis.command("SET actionhero:chatRoom:members:otherRoom nonsense").await;
    harness.proxy.restore();
    assert_eq!(next_presence(&mut harness.one, "join").await, harness.other.id());
}

#[tokio::test]
async fn observers_are_notified_that_redis_came_back_empty_and_the_node_keeps_its_generation() {
    let redis = Redis::start().await;
    let (events, mut observed) = tokio::sync::mpsc::channel(100);
    let watching = App::new("tour").observe(move |event: &Event| match event {
        Event::NodeJoined(node) => drop(events.try_send(format!("+{}", node.id))),
        Event::BackendLost => drop(events.try_send("lost".to_owned())),
        Event::Renamed(_) => drop(events.try_send("renamed".to_owned())),
        _ => {}
    });
    let watcher = watching.start_in_cluster(config("watcher"), &redis.url()).await.unwrap();
    assert_eq!(observed.recv().await.unwrap(), "+watcher");
    let generation = watcher.node().generation();
    for _ in 0..17 {
        redis.command("FLUSHALL").await;
        assert_eq!(observed.recv().await.unwrap(), "lost");
        assert_eq!(watcher.node().generation(), generation);
    }
    watcher.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_completes_the_destruction_of_a_room() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (url, slow) = (redis.url(), redis.url_through(proxy.addr()));
    let (here, there) = tokio::join!(node(&slow, "here"), node(&url, "there"));
    let rooms = here.node().rooms();
    rooms.create("gone").await.unwrap();
    let mut member = Socket::join(there.addr(), "gone").await;
    proxy.delay(Duration::from_millis(150));
    tokio::select! {
        _ = rooms.destroy("gone") => panic!("the publisher has no acknowledgement yet"),
        _ = member.next_in("user") => {}
    }
    proxy.delay(Duration::ZERO);
    here.stop().await;
    assert_eq!(redis.command("HLEN phalanx:tour:closed").await, ":0\r\n", "the closed room is forgotten");
    there.stop().await;
}

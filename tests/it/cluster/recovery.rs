//! What is put right after a fault, where another fault meets the repair.

use std::time::Duration;

use phalanx::event::Event;
use phalanx::prelude::*;
use phalanx_testkit::{Process, Proxy, Redis};
use serde_json::json;

use super::in_process::node;
use super::node_death::{observe, told};
use super::{BACK, apply, config, members, start_node, until};
use crate::client::{Socket, get};

/// A node that was cut off from Redis until it was found dead, with a member that the other node's heard leave.
struct World {
    redis: Redis,
    proxy: Proxy,
    near: Process,
    far: Process,
    one: Socket,
    other: Socket,
}

impl World {
    async fn new() -> Self {
        let redis = Redis::start().await;
        let proxy = Proxy::before(redis.addr()).await;
        let near = start_node(&redis.url(), "near").await;
        let far = start_node(&redis.url_through(proxy.addr()), "far").await;
        let mut one = observe(near.addr).await;
        let mut other = Socket::connect(far.addr).await;
        for room in ["otherRoom", "defaultRoom"] {
            other.ask_named(&json!({ "event": "roomAdd", "room": room, "messageId": room })).await;
        }
        proxy.cut();
        assert_eq!(told(&mut one, "leave").await, other.id());
        Self { redis, proxy, near, far, one, other }
    }

    async fn until_redis_says(&self, command: &str, expected: &str) {
        until(command, BACK, async || self.redis.ask(command).await == expected).await;
    }
}

#[tokio::test]
async fn a_node_whose_registration_is_not_answered_lists_its_members_all_the_same() {
    let mut world = World::new().await;
    let life = world.redis.ask("GET phalanx:tour:life").await;
    let life = life.lines().nth(1).unwrap();
    world.proxy.swallow(life);
    world.proxy.mend();
    world.until_redis_says("ZCARD phalanx:tour:leases", ":2\r\n").await;
    let given_up = || world.far.stderr().matches("the node is not registered").count();
    let before = given_up();
    world.proxy.cut();
    until("the registration is given up", BACK, async || given_up() > before).await;
    world.proxy.mend();
    assert_eq!(told(&mut world.one, "join").await, world.other.id());
    assert_eq!(members(world.near.addr, "otherRoom").await, 1);
    assert_eq!(apply(world.near.addr, &world.other.id(), "set", json!(["k", 1])).await.status, 200);
}

#[tokio::test]
async fn a_member_that_leaves_while_its_node_lists_it_again_is_off_the_list() {
    let World { redis: _redis, proxy, near, far, one: _one, mut other } = World::new().await;
    proxy.swallow("$3\r\nnew\r\n"); // that it is a member of the first room again
    proxy.mend();
    until("it is listed again", BACK, async || members(near.addr, "otherRoom").await == 1).await;
    proxy.cut();
    other.close().await;
    until("the node noticed", BACK, async || {
        String::from_utf8(get(far.admin, "/metrics").await.body).unwrap().contains("\nphalanx_connections 0\n")
    })
    .await;
    proxy.mend();
    until("nobody is listed", BACK, async || members(near.addr, "otherRoom").await == 0).await;
}

#[tokio::test]
async fn a_room_that_somebody_spoilt_keeps_no_other_from_being_listed_again() {
    let mut world = World::new().await;
    world.redis.ask("SET actionhero:chatRoom:members:otherRoom nonsense").await;
    world.proxy.mend();
    assert_eq!(told(&mut world.one, "join").await, world.other.id());
}

#[tokio::test]
async fn observers_hear_that_redis_came_back_empty_and_who_is_there_now() {
    let mut redis = Redis::start().await;
    let (heard, mut seen) = tokio::sync::mpsc::channel(100);
    let watching = App::new("tour").observe(move |event: &Event| match event {
        Event::NodeJoined(node) => drop(heard.try_send(format!("+{}", node.id))),
        Event::BackendLost => drop(heard.try_send("lost".to_owned())),
        Event::Renamed(_) => drop(heard.try_send("renamed".to_owned())),
        _ => {}
    });
    let watcher = watching.start_in_cluster(config("watcher"), &redis.url()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), "+watcher");
    redis.kill().await;
    redis.start_empty().await;
    for expected in ["lost", "renamed", "+watcher"] {
        assert_eq!(seen.recv().await.unwrap(), expected);
    }
    watcher.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_of_the_end_of_a_room_to_the_end() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (url, slow) = (redis.url(), redis.url_through(proxy.addr()));
    let (here, there) = tokio::join!(node(&slow, "here"), node(&url, "there"));
    let rooms = here.node().rooms();
    rooms.add("gone").await.unwrap();
    let mut member = Socket::join(there.addr(), "gone").await;
    proxy.delay(Duration::from_millis(300));
    tokio::select! {
        _ = rooms.destroy("gone") => panic!("nobody knows yet that it was told"),
        _ = member.next_in("user") => {}
    }
    proxy.delay(Duration::ZERO);
    here.stop().await;
    assert_eq!(redis.ask("HLEN phalanx:tour:closed").await, ":0\r\n", "it is forgotten");
    there.stop().await;
}

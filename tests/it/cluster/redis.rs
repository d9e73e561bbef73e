#![expect(clippy::print_stdout, reason = "a test tells what it measured")]

use std::time::Duration;

use phalanx_testkit::{Process, Proxy, Redis, Signal};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Cluster, apply, members, rounds, until};
use crate::client::{Socket, get, post_json};

/// What is promised within 5 s, or within 10 s after all was lost, may take longer on a machine that does other things.
const BACK: Duration = Duration::from_secs(50);

/// Two nodes with a member each, and someone who keeps asking.
struct World {
    cluster: Cluster,
    one: Socket,
    other: Socket,
    generations: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start(2).await;
        let one = Socket::join(cluster.addr(0), "defaultRoom").await;
        let mut other = Socket::join(cluster.addr(1), "defaultRoom").await;
        other.ask(r#"{"event":"detailsView"}"#).await;
        let generations = vec![cluster.generation(0).await, cluster.generation(1).await];
        Self { cluster, one, other, generations }
    }

    /// Asks until `fault` is over: each answer comes in time, and is one or a typed error.
    async fn ask_through(&self, fault: impl Future<Output = ()>) {
        let asking = async {
            loop {
                let (addr, id) = (self.cluster.addr(0), self.other.id());
                let began = Instant::now();
                let (applied, cached) = tokio::join!(
                    apply(addr, &id, "set", json!(["k", 1])),
                    post_json(addr, "/api/cacheTest", r#"{"key":"some","value":"thing"}"#)
                );
                assert!(began.elapsed() < Duration::from_secs(20), "answered after {:?}", began.elapsed());
                for answer in [applied, cached] {
                    let code = answer.error_code();
                    let known = ["", "unavailable", "unreachable", "late"].contains(&code.as_str());
                    assert!(known, "{answer:?}");
                }
            }
        };
        tokio::select! {
            () = fault => {}
            () = asking => {}
        }
    }

    /// Everything works again, and says how long that took. Without a restart of a process.
    async fn is_back(&mut self) {
        let (addr, id) = (self.cluster.addr(0), self.other.id());
        let took =
            until("calls go through", BACK, async || apply(addr, &id, "set", json!(["k", 1])).await.status == 200)
                .await;
        println!("calls go through after {took:?}");
        let took = until("both are listed", BACK, async || members(addr, "defaultRoom").await == 2).await;
        println!("members are listed after {took:?} more");
        until("the cache works", BACK, async || {
            post_json(addr, "/api/cacheTest", r#"{"key":"some","value":"thing"}"#).await.status == 200
        })
        .await;
        // The first that is said after the return may find the other node not subscribed yet, which tells a gap then.
        let began = Instant::now();
        for number in 0.. {
            assert!(began.elapsed() < BACK, "chat goes through");
            let said = json!({ "event": "say", "room": "defaultRoom", "message": number, "messageId": "s" });
            if self.one.ask_named(&said).await["status"] != "OK" {
                continue;
            }
            let end = json!({ "event": "roomView", "room": "defaultRoom", "messageId": "end" }).to_string();
            self.other.send(&end).await;
            let mut heard = false;
            loop {
                let frame = self.other.read().await;
                heard |= frame["message"] == number;
                if frame["messageId"] == "end" {
                    break;
                }
            }
            if heard {
                break;
            }
        }
        println!("chat goes through after {:?} more", began.elapsed());
    }

    async fn nobody_was_reaped(&mut self) {
        for node in 0..2 {
            assert_eq!(self.cluster.generation(node).await, self.generations[node]);
        }
        let leaves = get(self.cluster.addr(0), "/api/lists/leaves").await.json();
        assert_eq!(leaves["values"], json!([]), "no leave is told");
    }
}

#[tokio::test]
async fn a_frozen_redis_costs_nobody_its_membership() {
    let mut world = World::new().await;
    for _ in 0..rounds() {
        world.cluster.redis.freeze();
        let thawed = Instant::now() + Duration::from_secs(10);
        world.ask_through(sleep_until(thawed)).await; // the length of the freeze is the fault
        world.cluster.redis.thaw();
        world.is_back().await;
        world.nobody_was_reaped().await;
    }
}

#[tokio::test]
async fn a_redis_that_restarts_with_its_data_costs_nobody_its_membership() {
    let mut world = World::new().await;
    for _ in 0..rounds() {
        world.cluster.redis.kill().await;
        let again = Instant::now() + Duration::from_secs(7);
        world.ask_through(sleep_until(again)).await; // the length of the outage is the fault
        world.cluster.redis.start_again().await;
        world.is_back().await;
        world.nobody_was_reaped().await;
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_filled_from_what_the_nodes_hold() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        world.cluster.redis.kill().await;
        world.cluster.redis.start_empty().await;
        world.is_back().await;
        for room in ["defaultRoom", "otherRoom", "vip"] {
            let addr = world.cluster.addr(1);
            until("starting rooms are made again", BACK, async || members(addr, room).await != u64::MAX).await;
        }
        for node in 0..2 {
            assert_ne!(world.cluster.generation(node).await, world.generations[node]);
        }
    }
}

#[tokio::test]
async fn lost_connections_and_scripts_are_made_anew() {
    let mut world = World::new().await;
    for _ in 0..rounds() {
        world.cluster.redis.ask("SCRIPT FLUSH").await;
        world.is_back().await;
        for kind in ["normal", "pubsub"] {
            world.cluster.redis.ask(&format!("CLIENT KILL TYPE {kind}")).await;
        }
        world.is_back().await;
        world.nobody_was_reaped().await;
    }
}

#[tokio::test]
async fn whoever_leaves_while_redis_is_away_is_off_the_list_when_it_is_back() {
    let World { mut cluster, one: _one, mut other, .. } = World::new().await;
    cluster.redis.kill().await;
    other.close().await;
    let (here, operators) = (cluster.addr(0), cluster.nodes[1].admin);
    until("the node noticed", BACK, async || {
        String::from_utf8(get(operators, "/metrics").await.body).unwrap().contains("\nphalanx_connections 0\n")
    })
    .await;
    cluster.redis.start_again().await;
    until("one is listed", BACK, async || members(here, "defaultRoom").await == 1).await;
}

#[tokio::test]
async fn a_room_that_was_destroyed_while_nobody_could_hear_of_it_lets_its_members_go() {
    let mut world = World::new().await;
    world.cluster.redis.ask("SREM actionhero:chatRoom:rooms defaultRoom").await;
    world.cluster.redis.ask("CLIENT KILL TYPE pubsub").await;
    let addr = world.cluster.addr(0);
    for id in [world.one.id(), world.other.id()] {
        until("it is in no room", BACK, async || {
            apply(addr, &id, "details", json!(null)).await.json()["result"]["rooms"] == json!([])
        })
        .await;
    }
    let said = world.one.ask(r#"{"event":"say","room":"defaultRoom","message":1}"#).await;
    assert_eq!(said["error"]["code"], "not_found");
}

/// The network between one node and Redis fails; its clients and the other node's stay where they are.
#[tokio::test]
async fn a_node_cut_off_from_redis_is_taken_for_dead_and_comes_back_by_itself() {
    for _ in 0..rounds() {
        let redis = Redis::start().await;
        let proxy = Proxy::before(redis.addr()).await;
        let near = super::start_node(&redis.url(), "near").await;
        let far = super::start_node(&redis.url_through(proxy.addr()), "far").await;
        let mut one = Socket::join(near.addr, "defaultRoom").await;
        let mut other = Socket::join(far.addr, "defaultRoom").await;
        proxy.cut();
        let cut = Instant::now();
        let refused = other.ask(r#"{"event":"say","room":"defaultRoom","message":"anybody?"}"#).await;
        assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
        assert_eq!(get(far.addr, "/api/randomNumber").await.status, 200, "what is local goes on");
        assert_eq!(super::deaths::told(&mut one, "leave").await, other.id());
        sleep_until(cut + Duration::from_secs(10)).await; // the length of the cut is the fault
        proxy.mend();
        let mended = Instant::now();
        assert_eq!(super::deaths::told(&mut one, "join").await, other.id());
        println!("listed again after {:?}", mended.elapsed());
        until("it is reached again", BACK, async || {
            apply(near.addr, &other.id(), "set", json!(["k", 1])).await.status == 200
        })
        .await;
        println!("reached again after {:?}", mended.elapsed());
    }
}

#[tokio::test]
async fn a_gap_is_told_to_members() {
    let mut world = World::new().await;
    world.cluster.redis.ask("CLIENT KILL TYPE pubsub").await;
    let gap: Value = world.other.next_in("api").await;
    assert_eq!(gap, json!({ "context": "api", "event": "gap", "room": "defaultRoom" }));
}

#[tokio::test]
async fn a_node_whose_redis_is_not_there_yet_waits_for_it_and_tells_operators() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    redis.kill().await;
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("error: the backend does not answer"), "{text}");
    assert!(refused.stdout.is_empty());

    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bind = admin.to_string();
    let starting = tokio::spawn({
        let url = url.clone();
        async move { Process::start("tour", &[("REDIS_URL", url.as_str()), ("PHALANX__ADMIN__BIND", &bind)]).await }
    });
    until("the admin listener is up", BACK, async || tokio::net::TcpStream::connect(admin).await.is_ok()).await;
    assert_eq!(get(admin, "/livez").await.status, 200);
    assert_eq!(get(admin, "/readyz").await.status, 503);
    redis.start_again().await;
    let mut node = starting.await.unwrap();
    assert_eq!(get(admin, "/readyz").await.status, 200);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn outside_development_a_cluster_does_not_start_with_the_token_that_everybody_knows() {
    let environment = [("REDIS_URL", "redis://127.0.0.1:1"), ("PHALANX_ENV", "production")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("general.server_token"), "{text}");
}

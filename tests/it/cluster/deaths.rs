use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use phalanx_testkit::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Cluster, apply, members, nodes_of, rounds, sockets, start_node, status, until};
use crate::client::{Socket, get};

/// 250 sockets in four rooms each.
const SOCKETS: usize = 250;

const ROOMS: [&str; 4] = ["otherRoom", "second", "third", "fourth"];

/// What is promised within 8 s may take ten times as long on a machine that does other things too.
const REAPED: Duration = Duration::from_secs(80);

async fn make_rooms(cluster: &Cluster) {
    for room in &ROOMS[1..] {
        let made = crate::client::post_json(cluster.addr(0), "/api/rooms", &json!({ "name": room }).to_string()).await;
        assert_eq!(made.status, 200);
    }
}

/// How often each leave was told to the application.
async fn leaves(cluster: &Cluster, node: usize) -> HashMap<String, usize> {
    let listed = get(cluster.addr(node), "/api/lists/leaves").await.json();
    let mut counted = HashMap::new();
    for leave in listed["values"].as_array().cloned().unwrap_or_default() {
        *counted.entry(leave.as_str().unwrap().to_owned()).or_default() += 1;
    }
    counted
}

/// The member that the next such presence message is about; what comes before is dropped.
pub(super) async fn told(socket: &mut Socket, event: &str) -> String {
    loop {
        let frame = socket.next_in("presence").await;
        if frame["event"] == event {
            return frame["member"].as_str().unwrap().to_owned();
        }
    }
}

/// Joins the room that tells who comes, and has heard that it came itself: no earlier join is told to it later.
async fn observe(addr: std::net::SocketAddr) -> Socket {
    let mut socket = Socket::join(addr, "defaultRoom").await;
    while told(&mut socket, "join").await != socket.id() {}
    socket
}

async fn apply_within(addr: std::net::SocketAddr, id: &str, limit_ms: u64) -> crate::client::Response {
    let body = json!({ "method": "details", "timeoutMs": limit_ms }).to_string();
    crate::client::post_json(addr, &format!("/api/connections/{id}/apply"), &body).await
}

/// The presence messages that a socket gets until its own node answers it.
async fn presence(socket: &mut Socket) -> Vec<(String, String)> {
    socket.send(r#"{"event":"detailsView","messageId":"end"}"#).await;
    let mut told = Vec::new();
    loop {
        let frame = socket.read().await;
        if frame["messageId"] == "end" {
            return told;
        }
        if frame["context"] == "presence" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            told.push((text(&frame["event"]), text(&frame["member"])));
        }
    }
}

#[tokio::test]
async fn members_of_a_killed_node_leave_every_list_once_and_nobody_else_does() {
    let mut cluster = Cluster::start(3).await;
    make_rooms(&cluster).await;
    for round in 0..rounds() {
        cluster.redis.ask("DEL actionhero:cache:leaves").await; // a list is read up to 10,000 items
        let doomed = sockets(cluster.addr(2), SOCKETS, &ROOMS).await;
        let seen = sockets(cluster.addr(2), 20, &["defaultRoom"]).await;
        let stayers = sockets(cluster.addr(1), 10, &ROOMS).await;
        let mut observer = observe(cluster.addr(0)).await;
        let id = doomed[0].id();
        assert_eq!(members(cluster.addr(0), "otherRoom").await, SOCKETS as u64 + 10);

        cluster.nodes[2].signal(Signal::KILL);
        let killed = Instant::now();
        cluster.nodes[2].ended().await;
        // Redis has to notice as well: what it takes for the dead one until then is late.
        let took = until("it is unreachable", Duration::from_millis(500), async || {
            apply_within(cluster.addr(0), &id, 20).await.error_code() == "unreachable"
        })
        .await;
        for room in ROOMS {
            until("its members are gone", REAPED, async || members(cluster.addr(1), room).await == 10).await;
        }
        until("its members are gone", REAPED, async || members(cluster.addr(1), "defaultRoom").await == 1).await;
        let gone = killed.elapsed();
        assert_eq!(apply(cluster.addr(0), &id, "details", json!(null)).await.error_code(), "not_found");
        let expected = SOCKETS * ROOMS.len() + 20;
        until("all leaves are told", REAPED, async || leaves(&cluster, 0).await.len() == expected).await;
        println!("round {round}: unreachable after {took:?}, gone after {gone:?}, told after {:?}", killed.elapsed());
        assert!(leaves(&cluster, 0).await.values().all(|times| *times == 1), "each leave is told once");

        let mut left: Vec<String> = Vec::new();
        while left.len() < seen.len() {
            left.push(told(&mut observer, "leave").await);
        }
        let distinct: BTreeSet<_> = left.iter().cloned().collect();
        assert_eq!(distinct, seen.iter().map(Socket::id).collect(), "those that died");
        assert_eq!(presence(&mut observer).await, [], "nothing more is told");
        drop(stayers);
        drop(observer);
        // A room is left after its hooks, one after the other: who is out of the last has told every leave.
        for last in [ROOMS[3], "defaultRoom"] {
            until("the others have left", REAPED, async || members(cluster.addr(1), last).await == 0).await;
        }
        cluster.nodes[2] = start_node(&cluster.redis.url(), "n2").await;
        cluster.all_know(3).await;
    }
}

#[tokio::test]
async fn a_reaper_that_is_killed_in_the_middle_is_followed_by_another() {
    for round in 0..rounds() {
        let cluster = Cluster::start(4).await;
        make_rooms(&cluster).await;
        let doomed = sockets(cluster.addr(3), SOCKETS, &ROOMS).await;
        let seen = sockets(cluster.addr(3), 20, &["defaultRoom"]).await;
        let mut observers = Vec::new();
        for node in 0..3 {
            observers.push(observe(cluster.addr(node)).await);
        }
        let generations = [0, 1, 2].map(|node| cluster.addr(node));
        let mut names = HashMap::new();
        for (node, addr) in generations.into_iter().enumerate() {
            names.insert(status(addr).await["generation"].as_str().unwrap().to_owned(), node);
        }
        cluster.nodes[3].signal(Signal::KILL);
        let killed = Instant::now();
        let mut reaper = None;
        until("somebody reaps", REAPED, async || cluster.redis.ask("HVALS phalanx:tour:reapers").await.len() > 6).await;
        let claims = cluster.redis.ask("HVALS phalanx:tour:reapers").await;
        for (name, node) in &names {
            if claims.contains(name) {
                reaper = Some(*node);
            }
        }
        let Some(reaper) = reaper else { panic!("{claims:?} is one of {names:?}") };
        cluster.nodes[reaper].signal(Signal::KILL);
        let last = (reaper + 1) % 3;
        let addr = cluster.addr(last);
        until("both are gone", REAPED, async || nodes_of(addr).await.len() == 2).await;
        for room in ROOMS {
            until("its members are gone", REAPED, async || members(addr, room).await == 0).await;
        }
        let expected = SOCKETS * ROOMS.len() + 20 + 1; // and the observer on the reaper
        until("all leaves are told", REAPED, async || leaves(&cluster, last).await.len() == expected).await;
        let twice = leaves(&cluster, last).await.values().filter(|times| **times > 1).count();
        println!("round {round}: all told after {:?}, {twice} hooks ran again", killed.elapsed());
        assert!(twice <= 200, "{twice} hooks ran again");
        let mut expected: Vec<_> = seen.iter().map(Socket::id).collect();
        expected.push(observers[reaper].id());
        expected.sort();
        let mut left = Vec::new();
        let observer = &mut observers[last];
        while left.len() < expected.len() {
            left.push(told(observer, "leave").await);
        }
        let more = presence(observer).await;
        left.sort();
        assert_eq!((left, more), (expected, vec![]), "each leave is heard once");
        drop(doomed);
    }
}

#[tokio::test]
async fn a_node_frozen_past_its_lease_comes_back_under_a_new_name_and_serves_its_clients() {
    for _ in 0..rounds() {
        let cluster = Cluster::start(2).await;
        let mut frozen = observe(cluster.addr(1)).await;
        let mut other = observe(cluster.addr(0)).await;
        let before = cluster.generation(1).await;
        let id = frozen.id();
        cluster.nodes[1].freeze().await;
        let stopped = Instant::now();
        let addr = cluster.addr(0);
        let late = tokio::spawn(async move { apply(addr, &id, "set", json!(["stale", true])).await });
        assert_eq!(told(&mut other, "leave").await, frozen.id());
        assert_eq!(late.await.unwrap().error_code(), "late");
        assert_eq!(apply(addr, &frozen.id(), "details", json!(null)).await.error_code(), "not_found");
        sleep_until(stopped + Duration::from_secs(15)).await; // the length of the freeze is the fault
        cluster.nodes[1].thaw();
        assert_eq!(told(&mut other, "join").await, frozen.id());
        assert_ne!(cluster.generation(1).await, before);
        assert_eq!(members(addr, "defaultRoom").await, 2);
        let stale = apply(addr, &frozen.id(), "get", json!(["stale"])).await.json();
        assert_eq!(stale["result"], json!(null), "a call whose deadline had passed was run: {stale}");
        other.ask(r#"{"event":"say","room":"defaultRoom","message":"welcome back"}"#).await;
        assert_eq!(frozen.next_in("user").await["message"], "welcome back");
        assert_eq!(apply(addr, &frozen.id(), "set", json!(["k", 1])).await.status, 200);
    }
}

#[tokio::test]
async fn a_node_frozen_for_less_than_its_lease_is_not_reaped() {
    let cluster = Cluster::start(2).await;
    let frozen = observe(cluster.addr(1)).await;
    let mut other = observe(cluster.addr(0)).await;
    let before = cluster.generation(1).await;
    for _ in 0..rounds() {
        cluster.nodes[1].freeze().await;
        sleep_until(Instant::now() + Duration::from_secs(3)).await; // the length of the freeze is the fault
        cluster.nodes[1].thaw();
        assert_eq!(apply(cluster.addr(0), &frozen.id(), "set", json!(["k", 1])).await.status, 200);
        assert_eq!(cluster.generation(1).await, before);
        assert_eq!(presence(&mut other).await, [], "nobody left");
    }
}

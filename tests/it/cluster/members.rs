//! Member lists and presence of a room, as seen through any node.

use phalanx_testkit::Signal;
use serde_json::{Value, json};

use super::in_process::pair;
use super::node_death::{next_presence, observe, presence_so_far};
use super::{Cluster, PRESENCE, REAPED, SOON, apply, nodes_of, until};
use crate::client::{Socket, get, post_json};

/// The ids that a node lists as members.
async fn listed(cluster: &Cluster, node: usize) -> Vec<String> {
    let status = get(cluster.addr(node), &format!("/api/rooms/{PRESENCE}")).await.json();
    let mut ids: Vec<String> = status["members"].as_object().unwrap().keys().cloned().collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_connection_joins_and_leaves_through_any_node_and_each_is_announced_once() {
    let cluster = Cluster::start(3).await;
    let mut observer = observe(cluster.addr(0)).await;
    let mut socket = Socket::connect(cluster.addr(2)).await;
    let mut both = vec![observer.id(), socket.id()];
    both.sort_unstable();
    for node in 0..3 {
        let (near, far) = (cluster.addr(node), cluster.addr((node + 1) % 3));
        assert_eq!(apply(near, &socket.id(), "roomAdd", json!([PRESENCE])).await.status, 200);
        assert_eq!(apply(far, &socket.id(), "roomAdd", json!([PRESENCE])).await.error_code(), "conflict");
        for node in 0..3 {
            assert_eq!(listed(&cluster, node).await, both);
        }
        let published =
            post_json(far, &format!("/api/rooms/{PRESENCE}/say"), &json!({ "message": node }).to_string()).await;
        assert_eq!(published.status, 200);
        assert_eq!(socket.next_in("user").await["message"], node);
        assert_eq!(apply(far, &socket.id(), "roomLeave", json!([PRESENCE])).await.status, 200);
        assert_eq!(apply(near, &socket.id(), "roomLeave", json!([PRESENCE])).await.error_code(), "forbidden");
        for node in 0..3 {
            assert_eq!(listed(&cluster, node).await, [observer.id()]);
        }
        for event in ["join", "leave"] {
            assert_eq!(next_presence(&mut observer, event).await, socket.id());
        }
    }
    assert_eq!(presence_so_far(&mut observer).await, [], "nothing is announced twice");
}

#[tokio::test]
async fn lists_have_only_live_members_once_dead_nodes_are_found() {
    let mut cluster = Cluster::start(3).await;
    let doomed = Socket::join(cluster.addr(2), PRESENCE).await;
    let mut observer = observe(cluster.addr(0)).await;
    let mut expected = vec![observer.id()];
    cluster.nodes[2].signal(Signal::KILL);
    cluster.nodes[2].ended().await;
    // Until the dead node is reaped, its members are listed beside new ones.
    let late = Socket::join(cluster.addr(1), PRESENCE).await;
    expected.push(late.id());
    expected.sort_unstable();
    assert_eq!(next_presence(&mut observer, "leave").await, doomed.id());
    for node in 0..2 {
        assert_eq!(listed(&cluster, node).await, expected);
    }
    until("the dead node is reaped", REAPED, async || nodes_of(cluster.addr(0)).await.len() == 2).await;
    assert!(presence_so_far(&mut observer).await.iter().all(|(event, _)| event == "join"), "it left once");
}

#[tokio::test]
async fn a_connection_closed_while_its_node_is_frozen_leaves_as_often_as_it_joined() {
    let cluster = Cluster::start(2).await;
    let frozen = Socket::join(cluster.addr(1), PRESENCE).await;
    let mut observer = observe(cluster.addr(0)).await;
    let id = frozen.id();
    cluster.nodes[1].freeze();
    assert_eq!(next_presence(&mut observer, "leave").await, id);
    drop(frozen);
    cluster.nodes[1].thaw();
    until("the node is back", REAPED, async || nodes_of(cluster.addr(1)).await.len() == 2).await;
    let admin = cluster.nodes[1].admin;
    let none = |text: &[u8]| text.split(|byte| *byte == b'\n').any(|line| line == b"phalanx_connections 0");
    let gone = async || none(&get(admin, "/metrics").await.body);
    until("its socket is gone", SOON, gone).await;
    assert_eq!(listed(&cluster, 0).await, [observer.id()]);
    let hooks = get(cluster.addr(0), "/api/lists/leaves").await.json()["values"].as_array().map_or(0, Vec::len);
    // Its node may have relisted it before it noticed the disconnect: that is a membership with its own join and leave.
    let mut again = Vec::new();
    for _ in 1..hooks {
        let frames = [observer.next_in("presence").await, observer.next_in("presence").await];
        again.extend(frames.map(|frame| (frame["event"].clone(), frame["member"].clone())));
    }
    assert!(
        again.chunks(2).all(|membership| membership == [(json!("join"), json!(id)), (json!("leave"), json!(id))]),
        "{again:?}"
    );
    assert_eq!(presence_so_far(&mut observer).await, []);
}

#[tokio::test]
async fn a_room_that_is_recreated_at_once_keeps_its_new_members() {
    let (_redis, one, other) = pair().await;
    let message = |frame: &Value| frame["message"].as_str().unwrap_or_default().to_owned();
    for round in 0..20 {
        let (here, there) = (one.node().rooms(), other.node().rooms());
        if round == 0 {
            here.create("again").await.unwrap();
        }
        let mut old = [Socket::join(one.addr(), "again").await, Socket::join(other.addr(), "again").await];
        let (destroyed, joined) = tokio::join!(here.destroy("again"), async {
            while there.create("again").await.is_err() {}
            Socket::join(other.addr(), "again").await
        });
        destroyed.unwrap();
        let mut new = joined;
        for socket in &mut old {
            while message(&socket.next_in("user").await) != "this room has been deleted" {}
            assert_eq!(socket.request(r#"{"event":"detailsView"}"#).await["data"]["rooms"], json!([]));
        }
        assert_eq!(there.status("again").await.unwrap().members.count, 1);
        here.say("again", "only to new members").await.unwrap();
        assert_eq!(message(&new.next_in("user").await), "only to new members");
        new.close().await;
        until("it has left", SOON, async || here.status("again").await.unwrap().members.count == 0).await;
    }
    one.stop().await;
    other.stop().await;
}

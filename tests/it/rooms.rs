//! Rooms: message order, presence, and a member that never reads.

use serde_json::json;

use crate::app::{settings, start};
use crate::client::Socket;

#[tokio::test]
async fn presence_announces_each_join_and_leave_once() {
    let node = start(settings()).await;
    let mut one = Socket::connect(node.addr()).await;
    one.request(r#"{"event":"roomAdd","room":"lobby"}"#).await;
    assert_eq!(one.read().await["member"], json!(one.id()));
    let mut two = Socket::connect(node.addr()).await;
    two.request(r#"{"event":"roomAdd","room":"lobby"}"#).await;
    let two_id = two.id();
    assert_eq!(one.read().await, json!({"context": "presence", "event": "join", "room": "lobby", "member": two_id}));
    drop(two);
    assert_eq!(one.read().await, json!({"context": "presence", "event": "leave", "room": "lobby", "member": two_id}));
    node.stop().await;
}

#[tokio::test]
async fn all_members_receive_one_order_and_none_receives_a_dropped_message() {
    let node = start(settings()).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        let mut socket = Socket::connect(node.addr()).await;
        socket.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
        members.push(socket);
    }
    for n in 0..100 {
        for (sender, member) in members.iter_mut().enumerate() {
            member.send(&format!(r#"{{"event":"say","room":"quiet","message":[{sender},{n}]}}"#)).await;
        }
        members[0].send(r#"{"event":"say","room":"quiet","message":"/drop"}"#).await;
    }
    let mut received = Vec::new();
    for member in &mut members {
        let mut messages = Vec::new();
        while messages.len() < 400 {
            let frame = member.read().await;
            if frame["context"] == "user" {
                messages.push(frame["message"].clone());
            }
        }
        received.push(messages);
    }
    assert!(received.iter().all(|messages| *messages == received[0]));
    for sender in 0..4 {
        let own: Vec<_> =
            received[0].iter().filter(|message| message[0] == sender).map(|message| message[1].clone()).collect();
        assert_eq!(own, (0..100).map(|n| json!(n)).collect::<Vec<_>>());
    }
    node.stop().await;
}

#[tokio::test]
async fn a_destroyed_room_announces_it_and_removes_its_members() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    node.node().rooms().destroy("quiet").await.unwrap();
    assert_eq!(socket.read().await["message"], "this room has been deleted");
    assert_eq!(socket.request(r#"{"event":"detailsView"}"#).await["data"]["rooms"], json!([]));
    assert_eq!(socket.request(r#"{"event":"say","room":"quiet","message":1}"#).await["error"]["code"], "not_found");
    node.stop().await;
}

#[tokio::test]
async fn a_member_that_never_reads_is_closed_as_slow_and_the_others_receive_everything() {
    let node = start(settings()).await;
    let mut stalled = Socket::connect(node.addr()).await;
    stalled.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    let mut publisher = Socket::connect(node.addr()).await;
    publisher.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    let filler = "x".repeat(32_000);
    for n in 0..600 {
        publisher.send(&format!(r#"{{"event":"say","room":"quiet","message":[{n},"{filler}"]}}"#)).await;
        loop {
            let frame = publisher.read().await;
            if frame["context"] == "user" {
                assert_eq!(frame["message"][0], n);
                break;
            }
        }
    }
    assert!(matches!(stalled.closed().await, 4001 | 1006));
    assert_eq!(node.node().connections().count(), 1);
    node.stop().await;
}

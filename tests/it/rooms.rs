//! Rooms: one order, presence, and a member that never reads.

use serde_json::json;

use crate::app::{settings, start};
use crate::client::Socket;

#[tokio::test]
async fn who_comes_and_goes_is_told_once() {
    let node = start(settings()).await;
    let mut one = Socket::connect(node.addr()).await;
    one.ask(r#"{"event":"roomAdd","room":"lobby"}"#).await;
    assert_eq!(one.read().await["member"], json!(one.id()));
    let mut two = Socket::connect(node.addr()).await;
    two.ask(r#"{"event":"roomAdd","room":"lobby"}"#).await;
    let two_id = two.id();
    assert_eq!(one.read().await, json!({"context": "presence", "event": "join", "room": "lobby", "member": two_id}));
    drop(two);
    assert_eq!(one.read().await, json!({"context": "presence", "event": "leave", "room": "lobby", "member": two_id}));
    node.stop().await;
}

#[tokio::test]
async fn everybody_hears_the_same_order_and_a_dropped_message_is_heard_by_nobody() {
    let node = start(settings()).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        let mut socket = Socket::connect(node.addr()).await;
        socket.ask(r#"{"event":"roomAdd","room":"quiet"}"#).await;
        members.push(socket);
    }
    for n in 0..100 {
        for (who, member) in members.iter_mut().enumerate() {
            member.send(&format!(r#"{{"event":"say","room":"quiet","message":[{who},{n}]}}"#)).await;
        }
        members[0].send(r#"{"event":"say","room":"quiet","message":"/drop"}"#).await;
    }
    let mut heard = Vec::new();
    for member in &mut members {
        let mut messages = Vec::new();
        while messages.len() < 400 {
            let frame = member.read().await;
            if frame["context"] == "user" {
                messages.push(frame["message"].clone());
            }
        }
        heard.push(messages);
    }
    assert!(heard.iter().all(|messages| *messages == heard[0]));
    for who in 0..4 {
        let own: Vec<_> =
            heard[0].iter().filter(|message| message[0] == who).map(|message| message[1].clone()).collect();
        assert_eq!(own, (0..100).map(|n| json!(n)).collect::<Vec<_>>());
    }
    node.stop().await;
}

#[tokio::test]
async fn a_destroyed_room_says_so_and_lets_its_members_go() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.ask(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    node.node().rooms().destroy("quiet").await.unwrap();
    assert_eq!(socket.read().await["message"], "this room has been deleted");
    assert_eq!(socket.ask(r#"{"event":"detailsView"}"#).await["data"]["rooms"], json!([]));
    assert_eq!(socket.ask(r#"{"event":"say","room":"quiet","message":1}"#).await["error"]["code"], "not_found");
    node.stop().await;
}

#[tokio::test]
async fn a_member_that_never_reads_is_closed_as_slow_and_the_others_hear_everything() {
    let node = start(settings()).await;
    let mut deaf = Socket::connect(node.addr()).await;
    deaf.ask(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    let mut speaker = Socket::connect(node.addr()).await;
    speaker.ask(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    let filler = "x".repeat(32_000);
    for n in 0..600 {
        speaker.send(&format!(r#"{{"event":"say","room":"quiet","message":[{n},"{filler}"]}}"#)).await;
        loop {
            let frame = speaker.read().await;
            if frame["context"] == "user" {
                assert_eq!(frame["message"][0], n);
                break;
            }
        }
    }
    assert!(matches!(deaf.closed().await, 4001 | 1006));
    assert_eq!(node.node().connections().count(), 1);
    node.stop().await;
}

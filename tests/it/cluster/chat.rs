use std::collections::HashSet;

use phalanx_testkit::{Process, Redis, tell};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Cluster;
use crate::client::{Socket, get};

/// The page's list asks every member's own node.
#[tokio::test]
async fn who_lives_on_another_node_is_listed_by_name_too() {
    let redis = Redis::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__CLUSTER__NAME", "tour")]; // whose keys the user may touch
    let (one, two) = tokio::join!(Process::start("chat", &environment), Process::start("chat", &environment));
    let mut ann = Socket::join(one.addr, "lobby").await;
    let name = json!({ "event": "action", "messageId": 1, "params": { "action": "setName", "name": "Ann" } });
    assert_eq!(ann.ask_named(&name).await["name"], "Ann");
    let listed = get(two.addr, "/api/rooms/lobby/members").await.json();
    assert_eq!(listed["members"], json!([{ "id": ann.id(), "name": "Ann" }]));
}

const MEMBERS: usize = 32;
/// The first of the members, which say something as soon as they have the answer to what they said before.
const SPEAKERS: usize = 8;
const EACH: usize = 100_000 / MEMBERS / SPEAKERS + 1;

/// Members on three nodes, eight of them speaking at once: everybody hears the same, in the same order, once.
#[tokio::test]
async fn every_member_on_every_node_hears_the_same_in_the_same_order() {
    let cluster = Cluster::start(3).await;
    let mut sockets = Vec::new();
    for number in 0..MEMBERS {
        sockets.push(Socket::join(cluster.addr(number % 3), "otherRoom").await);
    }
    let mut members = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        members.spawn(member(socket, (number < SPEAKERS).then_some(number)));
    }
    let all = members.join_all().await;
    let distinct: HashSet<usize> = all[0].iter().copied().collect();
    assert_eq!(distinct.len(), SPEAKERS * EACH, "nothing is heard twice");
    for heard in &all {
        assert!(*heard == all[0], "a member heard another order");
    }
    for speaker in 0..SPEAKERS {
        let own = all[0].iter().filter(|message| **message / EACH == speaker);
        assert!(own.is_sorted(), "speaker {speaker} is heard in order");
    }
    tell(format_args!("{} deliveries in one order", MEMBERS * SPEAKERS * EACH));
}

/// All that a member hears, while it speaks or not.
async fn member(mut socket: Socket, speaker: Option<usize>) -> Vec<usize> {
    let mut heard = Vec::with_capacity(SPEAKERS * EACH);
    let hear = |heard: &mut Vec<usize>, frame: &Value| heard.push(frame["message"].as_u64().unwrap() as usize);
    if let Some(speaker) = speaker {
        for number in 0..EACH {
            let message = speaker * EACH + number;
            socket.send(&json!({ "event": "say", "room": "otherRoom", "message": message }).to_string()).await;
            loop {
                let frame = socket.read().await;
                if frame["context"] == "response" {
                    assert_eq!(frame["status"], "OK", "{frame}");
                    break;
                }
                hear(&mut heard, &frame);
            }
        }
    }
    while heard.len() < SPEAKERS * EACH {
        let frame = socket.read().await;
        hear(&mut heard, &frame);
    }
    heard
}

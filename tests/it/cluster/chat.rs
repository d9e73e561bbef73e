use std::collections::HashSet;

use phalanx_testkit::{Process, Redis, print};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Cluster;
use crate::client::{Socket, get};

/// The page's list gets each name from the member's own node.
#[tokio::test]
async fn members_on_another_node_are_listed_by_name_too() {
    let redis = Redis::start().await;
    let url = redis.url();
    // The testkit's Redis user may access only the keys of the cluster `tour`.
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__CLUSTER__NAME", "tour")];
    let (one, two) = tokio::join!(Process::start("chat", &environment), Process::start("chat", &environment));
    let mut ann = Socket::join(one.addr, "lobby").await;
    let name = json!({ "event": "action", "messageId": 1, "params": { "action": "setName", "name": "Ann" } });
    assert_eq!(ann.request_by_id(&name).await["name"], "Ann");
    let listed = get(two.addr, "/api/rooms/lobby/members").await.json();
    assert_eq!(listed["members"], json!([{ "id": ann.id(), "name": "Ann" }]));
}

const MEMBERS: usize = 32;
/// The number of members that publish: each sends its next message once the previous one is answered.
const PUBLISHERS: usize = 8;
const EACH: usize = 100_000 / MEMBERS / PUBLISHERS + 1;

/// Members on three nodes, eight of them publishing at once: each receives the same messages, in the same order, once.
#[tokio::test]
async fn every_member_on_every_node_receives_the_same_in_the_same_order() {
    let cluster = Cluster::start(3).await;
    let mut sockets = Vec::new();
    for number in 0..MEMBERS {
        sockets.push(Socket::join(cluster.addr(number % 3), "otherRoom").await);
    }
    let mut members = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        members.spawn(member(socket, (number < PUBLISHERS).then_some(number)));
    }
    let all = members.join_all().await;
    let distinct: HashSet<usize> = all[0].iter().copied().collect();
    assert_eq!(distinct.len(), PUBLISHERS * EACH, "no message is received twice");
    for received in &all {
        assert!(*received == all[0], "a member received another order");
    }
    for publisher in 0..PUBLISHERS {
        let own = all[0].iter().filter(|message| **message / EACH == publisher);
        assert!(own.is_sorted(), "messages of publisher {publisher} arrive in order");
    }
    print(format_args!("{} deliveries in one order", MEMBERS * PUBLISHERS * EACH));
}

/// Publishes, if the member has a number as a publisher, and returns all messages that it received.
async fn member(mut socket: Socket, publisher: Option<usize>) -> Vec<usize> {
    let mut received = Vec::with_capacity(PUBLISHERS * EACH);
    let record = |received: &mut Vec<usize>, frame: &Value| received.push(frame["message"].as_u64().unwrap() as usize);
    if let Some(publisher) = publisher {
        for number in 0..EACH {
            let message = publisher * EACH + number;
            socket.send(&json!({ "event": "say", "room": "otherRoom", "message": message }).to_string()).await;
            loop {
                let frame = socket.read().await;
                if frame["context"] == "response" {
                    assert_eq!(frame["status"], "OK", "{frame}");
                    break;
                }
                record(&mut received, &frame);
            }
        }
    }
    while received.len() < PUBLISHERS * EACH {
        let frame = socket.read().await;
        record(&mut received, &frame);
    }
    received
}

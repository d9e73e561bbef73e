use std::collections::HashSet;

use serde_json::json;
use tokio::task::JoinSet;

use super::Cluster;
use crate::client::Socket;

/// Members on three nodes, eight speakers at once: everybody hears the same, in the same order, once.
#[tokio::test]
async fn every_member_on_every_node_hears_the_same_in_the_same_order() {
    const MEMBERS: usize = 24;
    const SPEAKERS: usize = 8;
    const EACH: usize = 100_000 / MEMBERS / SPEAKERS + 1;
    let cluster = Cluster::start(3).await;
    let mut listening = JoinSet::new();
    for number in 0..MEMBERS {
        let mut socket = Socket::join(cluster.addr(number % 3), "otherRoom").await;
        listening.spawn(async move {
            let mut heard = Vec::with_capacity(SPEAKERS * EACH);
            while heard.len() < SPEAKERS * EACH {
                let frame = socket.next_in("user").await;
                heard.push(frame["message"].as_u64().unwrap());
            }
            heard
        });
    }
    let mut speaking = JoinSet::new();
    for speaker in 0..SPEAKERS {
        let mut socket = Socket::join(cluster.addr(speaker % 3), "otherRoom").await;
        speaking.spawn(async move {
            for number in 0..EACH {
                let message = speaker * EACH + number;
                let said = socket
                    .ask_named(&json!({ "event": "say", "room": "otherRoom", "message": message, "messageId": "s" }))
                    .await;
                assert_eq!(said["status"], "OK", "{said}");
            }
        });
    }
    speaking.join_all().await;
    let all = listening.join_all().await;
    let distinct: HashSet<u64> = all[0].iter().copied().collect();
    assert_eq!(distinct.len(), SPEAKERS * EACH, "nothing is heard twice");
    for (member, heard) in all.iter().enumerate() {
        assert!(*heard == all[0], "member {member} heard another order");
    }
    for speaker in 0..SPEAKERS {
        let own = all[0].iter().filter(|number| **number as usize / EACH == speaker);
        assert!(own.is_sorted(), "speaker {speaker} is heard in order");
    }
    println!("{} deliveries in one order", MEMBERS * SPEAKERS * EACH);
}

//! The slot of a cluster's keys moves to another server of a Redis Cluster.

use phalanx_testkit::{Process, Proxy, Redis, check_time};
use tokio::time::Instant;

use super::clusters::start_in_one_slot;
use super::failover::{Member, breaks, until_opened_again};
use super::{RECOVERY, SOON, until};

/// Moves the keys that the old server still has.
async fn move_keys(old: &Redis, new: &Redis, slot: u16) {
    loop {
        let reply = old.command(&format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
        let keys: Vec<&str> = reply.lines().skip(2).step_by(2).collect(); // *n, $length, key, $length, key, ...
        if keys.is_empty() {
            return;
        }
        let port = new.addr().port();
        let moved = old.command(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {}", keys.join(" "))).await;
        assert_eq!(moved, "+OK\r\n");
    }
}

fn refusals(node: &Process) -> usize {
    ["reply=\"ASK", "reply=\"TRYAGAIN"].iter().map(|refusal| node.stderr().matches(refusal).count()).sum()
}

/// The old server refuses what is said before the address leads to the new one. Then all connections go there, with one gap.
#[tokio::test]
async fn a_slot_that_moves_to_another_server_is_followed() {
    let old = Redis::start_in_cluster_mode().await;
    let new = old.start_beside().await;
    let address = Proxy::before(old.addr()).await;
    let url = format!("redis://{}", address.addr());
    let nodes = [start_in_one_slot(&url, "one").await, start_in_one_slot(&url, "two").await];
    let mut members = [Member::join(&nodes[0]).await, Member::join(&nodes[1]).await];
    assert!(members[0].say("before").await, "the publisher of one node is connected");
    members[1].receive("before").await;
    let generations = [super::status(nodes[0].addr).await, super::status(nodes[1].addr).await];

    let slot: u16 = old.command("CLUSTER KEYSLOT {tour}").await.trim_matches([':', '\r', '\n']).parse().unwrap();
    let id_of = async |redis: &Redis| redis.command("CLUSTER MYID").await.lines().nth(1).unwrap().to_owned();
    let (from, to) = (id_of(&old).await, id_of(&new).await);
    assert_eq!(new.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}")).await, "+OK\r\n");
    assert_eq!(old.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}")).await, "+OK\r\n");
    for node in &nodes {
        until("redis refuses", SOON, async || refusals(node) > 0).await;
        assert_eq!(breaks(node), 0, "the server is still the one of the slot: {}", node.stderr());
    }
    assert!(!members[0].say("between two servers").await);
    move_keys(&old, &new, slot).await;
    for server in [&new, &old] {
        assert_eq!(server.command(&format!("CLUSTER SETSLOT {slot} NODE {to}")).await, "+OK\r\n");
    }
    assert!(!members[0].say("at the old server").await);
    address.switch_to(new.addr());
    let moved = Instant::now();
    for node in &nodes {
        until_opened_again(node).await; // what is said before lies in the gap of the node that comes last
    }
    until("a message passes", SOON, async || members[1].say("after").await).await;
    members[0].receive("after").await;
    check_time("a slot that has moved: back", moved.elapsed(), RECOVERY);
    assert!(members[0].say("and back").await);
    members[1].receive("and back").await;
    for ((node, member), before) in nodes.iter().zip(&members).zip(&generations) {
        assert_eq!((breaks(node), member.gaps), (1, 1), "{}", node.stderr());
        assert_eq!(super::status(node.addr).await["generation"], before["generation"]);
    }
}

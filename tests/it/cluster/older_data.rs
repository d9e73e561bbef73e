//! Redis comes back with older data, or without a part of it.

use std::time::Duration;

use phalanx_testkit::{at_most, check_time};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::node_death::{next_presence, observe, presence_so_far};
use super::{Cluster, PRESENCE, members, sockets, until};
use crate::client::{Socket, post_json};

/// Sockets of a node that stay, that leave after the data was kept, and that join after it.
const STAY: usize = 40;
const CHANGE: usize = 15;

/// The documented time within which they are listed again.
const LISTED: Duration = Duration::from_secs(2);

async fn leave(all: Vec<Socket>, observer: &mut Socket) {
    for mut socket in all {
        socket.close().await;
        next_presence(observer, "leave").await;
    }
}

/// Who stays is not announced, closed or taken out of a room; who left is not listed again, and a room that was created
/// after the data was kept is no destroyed one.
#[tokio::test]
async fn the_nodes_restore_what_redis_has_forgotten_and_no_member_notices() {
    let mut cluster = Cluster::start(2).await;
    let mut observer = observe(cluster.addr(0)).await;
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for node in 0..2 {
        stay.extend(sockets(cluster.addr(node), STAY, &[PRESENCE]).await);
        go.extend(sockets(cluster.addr(node), CHANGE, &[PRESENCE]).await);
    }
    let generations = [cluster.generation(0).await, cluster.generation(1).await];
    cluster.redis.keep();
    let kept = Instant::now();
    leave(go, &mut observer).await;
    for node in 0..2 {
        stay.extend(sockets(cluster.addr(node), CHANGE, &[PRESENCE]).await);
    }
    let created = post_json(cluster.addr(0), "/api/rooms", &json!({ "name": "since" }).to_string()).await;
    assert_eq!(created.status, 200);
    stay.push(Socket::join(cluster.addr(1), "since").await);
    sleep_until(kept + Duration::from_secs(8)).await; // the age of the data is the fault
    presence_so_far(&mut observer).await;
    let listed = 2 * (STAY + CHANGE) as u64 + 1;

    for fault in ["older data", "no leases", "a room without members", "nothing at all"] {
        match fault {
            "older data" => {
                cluster.redis.kill().await;
                cluster.redis.start_older().await;
            }
            "no leases" => drop(cluster.redis.command("DEL phalanx:tour:leases").await),
            "nothing at all" => drop(cluster.redis.command("FLUSHALL").await),
            _ => {
                cluster.redis.command(&format!("DEL actionhero:chatRoom:members:{PRESENCE}")).await;
                cluster.redis.command("CLIENT KILL TYPE normal").await;
            }
        }
        let back = Instant::now();
        let addr = cluster.addr(1);
        until("all are listed", at_most(LISTED), async || {
            members(addr, PRESENCE).await == listed && members(addr, "since").await == 1
        })
        .await;
        check_time(&format!("{fault}: {listed} members are listed"), back.elapsed(), LISTED);
        // Long enough for a reap.
        sleep_until(back + Duration::from_secs(8)).await;
        assert_eq!(members(addr, PRESENCE).await, listed, "{fault}");
        let held = cluster.redis.command(&format!("HLEN phalanx:tour:held:{}", generations[1])).await;
        assert_eq!(held, format!(":{}\r\n", STAY + CHANGE + 1), "{fault}: no ghost is stored");
        for (node, generation) in generations.iter().enumerate() {
            assert_eq!(cluster.generation(node).await, *generation, "{fault}: no node was renamed");
        }
        assert_eq!(presence_so_far(&mut observer).await, [], "{fault}");
    }
    for socket in &mut stay {
        let details = socket.request_by_id(&json!({ "event": "detailsView", "messageId": "end" })).await;
        assert_eq!(details["data"]["rooms"].as_array().unwrap().len(), 1, "{details}");
    }
}

/// Before the nodes notice the loss: others have received their joins, and no reaper took them.
#[tokio::test]
async fn who_leaves_after_redis_has_lost_their_entry_is_announced() {
    let cluster = Cluster::start(2).await;
    let mut observer = observe(cluster.addr(0)).await;
    for lost in [&format!("DEL actionhero:chatRoom:members:{PRESENCE}"), "FLUSHALL"] {
        let [mut leaves, mut closes] =
            [Socket::join(cluster.addr(1), PRESENCE).await, Socket::join(cluster.addr(1), PRESENCE).await];
        let ids = [leaves.id(), closes.id()];
        for id in &ids {
            assert_eq!(next_presence(&mut observer, "join").await, *id);
        }
        cluster.redis.command(lost).await;
        let left = leaves.request_by_id(&json!({ "event": "roomLeave", "room": PRESENCE, "messageId": "leave" })).await;
        assert_eq!(left["status"], "OK", "{left}");
        closes.close().await;
        for id in &ids {
            assert_eq!(next_presence(&mut observer, "leave").await, *id, "{lost}");
        }
        until("the observer is listed", at_most(LISTED), async || members(cluster.addr(1), PRESENCE).await == 1).await;
        assert_eq!(presence_so_far(&mut observer).await, [], "{lost}");
    }
}

/// No list names the members of a node that dies before it has listed them again, so no reaper announces their leaves. A node
/// that starts meanwhile has lost nothing, and its members may have read lists that were not restored.
#[tokio::test]
async fn once_lists_are_restored_members_of_rooms_with_presence_read_them_again() {
    /// The documented time between a loss and the last gap that it brings.
    const RESTORED: Duration = Duration::from_secs(10);
    let mut cluster = Cluster::start(2).await;
    let mut observer = observe(cluster.addr(0)).await;
    let mut without_presence = Socket::join(cluster.addr(0), "otherRoom").await;
    let unlisted = Socket::join(cluster.addr(1), PRESENCE).await;
    assert_eq!(next_presence(&mut observer, "join").await, unlisted.id());
    cluster.nodes.truncate(1); // by SIGKILL
    cluster.redis.command("FLUSHALL").await;
    let lost = Instant::now();
    let later = super::start_node(&cluster.redis.url(), "later").await;
    let mut newcomer = observe(later.addr).await;
    for member in [&mut observer, &mut newcomer] {
        let gap = member.next_in("api").await;
        check_time("members of a room with presence read it again", lost.elapsed(), RESTORED);
        assert!(lost.elapsed() >= RESTORED, "no sooner than the lists are restored");
        assert_eq!(gap, json!({ "context": "api", "event": "gap", "room": PRESENCE }));
    }
    assert_eq!(members(cluster.addr(0), PRESENCE).await, 2);
    without_presence.send(r#"{"event":"detailsView"}"#).await;
    assert_eq!(without_presence.read().await["context"], "response", "no gap: the other room missed nothing");
}

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_testkit::{Process, Proxy, Redis, Signal, at_most, check_time};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::load::{self, Load};
use super::node_death::{leaves, next_presence, observe, presence_so_far};
use super::{BACK, Cluster, REAP, RECOVERY, RECOVERY_FROM_NOTHING, SOON, apply, members, rounds, until};
use crate::client::{Socket, get, post_json};

/// Errors that a call may get while Redis fails: the outcome is unknown, or nothing was done.
const UNKNOWN: [&str; 3] = ["unavailable", "unreachable", "late"];

/// The same where a node is reaped.
const UNKNOWN_OR_GONE: [&str; 4] = ["unavailable", "unreachable", "late", "not_found"];

/// The same where Redis may lose a saved value before it is loaded.
const UNKNOWN_GONE_OR_FORGOTTEN: [&str; 5] = ["unavailable", "unreachable", "late", "not_found", "conflict"];

/// Two nodes with a member each in the room with presence.
struct Harness {
    cluster: Cluster,
    one: Socket,
    other: Socket,
    generations: Vec<String>,
}

impl Harness {
    async fn new() -> Self {
        let cluster = Cluster::start(2).await;
        let mut one = observe(cluster.addr(0)).await;
        let other = observe(cluster.addr(1)).await;
        while next_presence(&mut one, "join").await != other.id() {}
        let generations = vec![cluster.generation(0).await, cluster.generation(1).await];
        Self { cluster, one, other, generations }
    }

    /// Starts clients that keep working through a fault, once those of the previous fault and their recorded leaves are
    /// gone.
    async fn load(&self) -> Load {
        let addr = self.cluster.addr(0);
        until("the room of the load is empty", SOON, async || members(addr, load::ROOM).await == 0).await;
        self.cluster.redis.command("DEL actionhero:cache:leaves").await;
        Load::start([self.cluster.addr(0), self.cluster.addr(1)]).await
    }

    /// Closes the room as another node does that destroys it, and publishes nothing.
    async fn close_room(&self) {
        let redis = &self.cluster.redis;
        let reply = redis.command("HGET phalanx:tour:lives defaultRoom").await;
        let incarnation = reply.lines().nth(1).unwrap();
        redis.command(&format!("HSET phalanx:tour:ended defaultRoom {incarnation}")).await;
        redis.command("HDEL phalanx:tour:lives defaultRoom").await;
        redis.command("SREM actionhero:chatRoom:rooms defaultRoom").await;
    }

    async fn both_are_listed(&self, fault: &str, since: Instant, figure: Duration) {
        let addr = self.cluster.addr(0);
        until("both are listed", at_most(figure), async || members(addr, "defaultRoom").await == 2).await;
        check_time(&format!("{fault}: members are listed"), since.elapsed(), figure);
    }

    /// Checks that the fault cost no node its generation and no member its membership: both would happen within 8 s.
    async fn nothing_was_reaped(&mut self, since: Instant) {
        sleep_until(since + Duration::from_secs(8)).await;
        for node in 0..2 {
            assert_eq!(self.cluster.generation(node).await, self.generations[node]);
        }
        let leaves = get(self.cluster.addr(0), "/api/lists/leaves").await.json();
        assert_eq!(leaves["values"], json!([]), "no leave hook ran");
        for socket in [&mut self.one, &mut self.other] {
            assert_eq!(presence_so_far(socket).await, [], "no leave was announced");
        }
    }
}

#[tokio::test]
async fn a_frozen_redis_costs_no_connection_its_membership() {
    const FAULT: &str = "redis frozen for 10 s";
    let mut harness = Harness::new().await;
    for _ in 0..rounds() {
        let load = harness.load().await;
        harness.cluster.redis.freeze();
        load.until(load::BEGIN, Instant::now() + Duration::from_secs(10)).await; // the length of the freeze is the fault
        harness.cluster.redis.thaw();
        let thawed = Instant::now();
        load.recovered(FAULT, thawed, RECOVERY).await;
        harness.both_are_listed(FAULT, thawed, RECOVERY).await;
        harness.nothing_was_reaped(thawed).await;
        load.finish(FAULT, &UNKNOWN).await;
    }
}

#[tokio::test]
async fn a_redis_that_restarts_with_its_data_costs_no_connection_its_membership() {
    const FAULT: &str = "redis away for 7 s, and back with its data";
    let mut harness = Harness::new().await;
    for _ in 0..rounds() {
        let load = harness.load().await;
        harness.cluster.redis.kill().await;
        load.until(load::BEGIN, Instant::now() + Duration::from_secs(7)).await; // the length of the outage is the fault
        harness.cluster.redis.start_again().await;
        let back = Instant::now();
        load.recovered(FAULT, back, RECOVERY).await;
        harness.both_are_listed(FAULT, back, RECOVERY).await;
        harness.nothing_was_reaped(back).await;
        load.finish(FAULT, &UNKNOWN).await;
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_refilled_by_the_nodes() {
    const FAULT: &str = "redis restarted empty";
    for _ in 0..rounds() {
        let mut harness = Harness::new().await;
        let load = harness.load().await;
        harness.cluster.redis.kill().await;
        harness.cluster.redis.start_empty().await;
        let back = Instant::now();
        load.recovered(FAULT, back, RECOVERY_FROM_NOTHING).await;
        harness.both_are_listed(FAULT, back, RECOVERY_FROM_NOTHING).await;
        for room in ["defaultRoom", "otherRoom", "vip"] {
            let addr = harness.cluster.addr(1);
            until("start rooms are created again", SOON, async || members(addr, room).await != u64::MAX).await;
        }
        for node in 0..2 {
            assert_eq!(harness.cluster.generation(node).await, harness.generations[node], "none was reaped");
        }
        load.finish(FAULT, &UNKNOWN_GONE_OR_FORGOTTEN).await;
    }
}

#[tokio::test]
async fn lost_connections_and_scripts_are_restored() {
    let mut harness = Harness::new().await;
    for _ in 0..rounds() {
        for (fault, commands) in [
            ("scripts flushed", &["SCRIPT FLUSH"] as &[&str]),
            ("all connections killed", &["CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"]),
        ] {
            let load = harness.load().await;
            for command in commands {
                harness.cluster.redis.command(command).await;
            }
            let done = Instant::now();
            load.recovered(fault, done, RECOVERY).await;
            harness.both_are_listed(fault, done, RECOVERY).await;
            harness.nothing_was_reaped(done).await;
            load.finish(fault, &UNKNOWN).await;
        }
    }
}

#[tokio::test]
async fn a_member_that_leaves_while_redis_is_down_is_unlisted_when_it_is_back() {
    let Harness { mut cluster, one: _one, mut other, .. } = Harness::new().await;
    cluster.redis.kill().await;
    other.close().await;
    let (here, operators) = (cluster.addr(0), cluster.nodes[1].admin);
    until("the node has removed the connection", SOON, async || {
        String::from_utf8(get(operators, "/metrics").await.body).unwrap().contains("\nphalanx_connections 0\n")
    })
    .await;
    cluster.redis.start_again().await;
    until("one is listed", BACK, async || members(here, "defaultRoom").await == 1).await;
}

#[tokio::test]
async fn a_room_that_was_destroyed_during_a_gap_removes_its_members() {
    let mut harness = Harness::new().await;
    harness.close_room().await;
    harness.cluster.redis.command("CLIENT KILL TYPE pubsub").await;
    let addr = harness.cluster.addr(0);
    for id in [harness.one.id(), harness.other.id()] {
        until("it is in no room", BACK, async || {
            apply(addr, &id, "details", json!(null)).await.json()["result"]["rooms"] == json!([])
        })
        .await;
    }
    let refused = harness.one.request(r#"{"event":"say","room":"defaultRoom","message":1}"#).await;
    assert_eq!(refused["error"]["code"], "not_found");
}

#[tokio::test]
async fn a_room_that_was_recreated_during_a_gap_takes_over_no_members() {
    let harness = Harness::new().await;
    let addr = harness.cluster.addr(0);
    harness.close_room().await;
    let created = post_json(addr, "/api/rooms", &json!({ "name": "defaultRoom" }).to_string()).await;
    assert_eq!(created.status, 200);
    harness.cluster.redis.command("CLIENT KILL TYPE pubsub").await;
    let ids = [harness.one.id(), harness.other.id()];
    for id in &ids {
        until("it is in no room", BACK, async || {
            apply(addr, id, "details", json!(null)).await.json()["result"]["rooms"] == json!([])
        })
        .await;
    }
    assert_eq!(members(addr, "defaultRoom").await, 0);
    let left = ids.map(|id| (format!("defaultRoom:{id}"), 1));
    until("hooks ran once", BACK, async || leaves(&harness.cluster, 0).await == HashMap::from(left.clone())).await;
}

/// The network between one node and Redis fails for 30 s; clients of both nodes remain connected.
async fn cut_one_node_off() {
    const FAULT: &str = "one node cut off for 30 s";
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let near = super::start_node(&redis.url(), "near").await;
    let far = super::start_node(&redis.url_through(proxy.addr()), "far").await;
    let mut one = observe(near.addr).await;
    let mut other = observe(far.addr).await;
    let load = Load::start([near.addr, far.addr]).await;
    proxy.cut();
    let cut = Instant::now();
    let meanwhile = async {
        let refused = other.request(r#"{"event":"say","room":"defaultRoom","message":"hello"}"#).await;
        assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
        assert_eq!(get(far.addr, "/api/randomNumber").await.status, 200, "local actions work");
        assert_eq!(next_presence(&mut one, "leave").await, other.id());
        check_time(&format!("{FAULT}: reaped"), cut.elapsed(), REAP);
    };
    // Until after the reap: calls that cross it are what may end differently. The length of the cut is the fault.
    tokio::join!(load.until(REAP + load::BEGIN, cut + Duration::from_secs(30)), meanwhile);
    proxy.restore();
    let restored = Instant::now();
    assert_eq!(next_presence(&mut one, "join").await, other.id());
    check_time(&format!("{FAULT}: listed again"), restored.elapsed(), RECOVERY);
    load.recovered(FAULT, restored, RECOVERY).await;
    load.finish(FAULT, &UNKNOWN_OR_GONE).await;
    assert_eq!(members(near.addr, "defaultRoom").await, 2);
}

/// Rounds have clusters of their own, and mostly wait: a few run at once.
#[tokio::test]
async fn a_node_cut_off_from_redis_is_reaped_and_recovers_by_itself() {
    let mut left = rounds();
    while left > 0 {
        let some = left.min(3);
        join_all((0..some).map(|_| cut_one_node_off())).await;
        left -= some;
    }
}

#[tokio::test]
async fn a_gap_is_announced_to_members() {
    let mut harness = Harness::new().await;
    harness.cluster.redis.command("CLIENT KILL TYPE pubsub").await;
    let gap: Value = harness.other.next_in("api").await;
    assert_eq!(gap, json!({ "context": "api", "event": "gap", "room": "defaultRoom" }));
}

#[tokio::test]
async fn a_node_whose_redis_is_not_up_yet_waits_for_it_and_reports_that_it_is_not_ready() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    redis.kill().await;
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("error: the backend does not answer"), "{text}");
    assert!(refused.stdout.is_empty());

    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], phalanx_testkit::free_port()));
    let bind = admin.to_string();
    let starting = tokio::spawn({
        let url = url.clone();
        async move { Process::start("tour", &[("REDIS_URL", url.as_str()), ("PHALANX__ADMIN__BIND", &bind)]).await }
    });
    until("the admin listener is up", SOON, async || tokio::net::TcpStream::connect(admin).await.is_ok()).await;
    assert_eq!(get(admin, "/livez").await.status, 200);
    assert_eq!(get(admin, "/readyz").await.status, 503);
    redis.start_again().await;
    let mut node = starting.await.unwrap();
    assert_eq!(get(admin, "/readyz").await.status, 200);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn start_rooms_that_redis_refuses_are_created_later_or_fail_the_boot_with_the_reason() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx -scard").await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("error: room defaultRoom: the backend failed half-way"), "{text}");

    let mut node = Process::spawn("tour", &environment[..1]);
    until("a room is refused", SOON, async || node.stderr().contains("cannot be reached yet")).await;
    redis.command("ACL SETUSER phalanx +scard").await;
    node.ready().await;
    assert_eq!(members(node.addr, "vip").await, 0);
}

#[tokio::test]
async fn outside_development_a_cluster_does_not_start_with_the_default_token() {
    let environment = [("REDIS_URL", "redis://127.0.0.1:1"), ("PHALANX_ENV", "production")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("general.server_token"), "{text}");
}

//! A Redis that is away, full or refuses: what operators and clients are told.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use phalanx_testkit::{Process, Proxy, Redis, Signal, check_time};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{BACK, SOON, config, until};
use crate::client::{Socket, get};

/// The default of `redis.command_timeout`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_node_that_lost_its_lease_is_not_ready_unless_it_needs_no_cluster() {
    let redis = Redis::start().await;
    let start = async |id: &str, needs_cluster| {
        let mut config = config(id);
        config.admin.bind = "127.0.0.1:0".to_owned();
        config.admin.ready_needs_cluster = needs_cluster;
        App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
    };
    let (node, lenient) = (start("node", true).await, start("lenient", false).await);
    let ready = async |of: &RunningApp| get(of.admin_addr().unwrap(), "/readyz").await;
    assert_eq!(ready(&node).await.status, 200);
    redis.freeze();
    let frozen = Instant::now();
    until("the node is not ready", SOON, async || ready(&node).await.status == 503).await;
    assert!(frozen.elapsed() > Duration::from_secs(2), "a short stall costs nothing: {:?}", frozen.elapsed());
    assert_eq!(ready(&node).await.json(), json!({ "ready": false, "problems": ["not in the cluster"] }));
    assert_eq!(get(node.admin_addr().unwrap(), "/livez").await.status, 200, "nothing should restart it");
    until("the other lost its lease too", SOON, async || lenient.node().is_fenced()).await;
    assert_eq!(ready(&lenient).await.status, 200);
    redis.thaw();
    until("the node is ready again", BACK, async || ready(&node).await.status == 200).await;
    tokio::join!(node.stop(), lenient.stop());
}

/// Writes to the cache when a member leaves.
async fn note_leave(leaving: Leaving) -> Result<(), ActionError> {
    leaving.context().cache().save("last_leave", &"x".repeat(1000), None).await
}

#[tokio::test]
async fn a_hook_that_fails_on_a_full_redis_is_named_as_the_cause() {
    let redis = Redis::start().await;
    let mut config = config("node");
    config.rooms.start = vec!["den".to_owned()];
    let node = App::new("tour").before_leave(note_leave).start_in_cluster(config, &redis.url()).await.unwrap();
    let mut socket = Socket::join(node.addr(), "den").await;
    redis.command("CONFIG SET maxmemory 1").await;
    let refused = socket.request(r#"{"event":"roomLeave","room":"den"}"#).await;
    let message = "the before_leave hook failed: the backend is full, nothing was stored";
    assert_eq!(refused["error"], json!({ "code": "unavailable", "message": message }));
    redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(socket.request(r#"{"event":"roomLeave","room":"den"}"#).await["status"], "OK");
    node.stop().await;
}

/// Adds a user with these rules to a Redis, and returns the URL with it.
async fn user(redis: &Redis, name: &str, rules: &str) -> String {
    let added = redis.command(&format!("ACL SETUSER {name} on >secret {rules}")).await;
    assert_eq!(added, "+OK\r\n", "{rules}");
    redis.url().replace("phalanx:", &format!("{name}:"))
}

/// Starts a node that gets a second to enter the cluster, and returns its log once it has given up.
async fn refused_boot(url: &str) -> String {
    let environment = [("REDIS_URL", url), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    text
}

#[tokio::test]
async fn a_user_without_dangerous_commands_suffices() {
    let redis = Redis::start().await;
    let url =
        user(&redis, "app", "~actionhero:* ~phalanx:tour:* ~resque:* &tour &tour:* +@all -@admin -@dangerous").await;
    let (one, other) = tokio::join!(super::start_node(&url, "one"), super::start_node(&url, "other"));
    let (mut speaker, mut listener) =
        (Socket::join(one.addr, "otherRoom").await, Socket::join(other.addr, "otherRoom").await);
    let said = speaker.request(r#"{"event":"say","room":"otherRoom","message":"hello"}"#).await;
    assert_eq!(said["status"], "OK", "{said}");
    assert_eq!(listener.next_in("user").await["message"], "hello");
    assert_eq!(super::apply(one.addr, &listener.id(), "set", json!(["k", 1])).await.status, 200);
    for node in [&one, &other] {
        assert!(!node.stderr().contains("redis refuses"), "{}", node.stderr());
    }
}

#[tokio::test]
async fn a_user_without_publish_is_named_at_boot_and_to_clients_as_a_refusal() {
    let redis = Redis::start().await;
    let url = user(&redis, "app", "~* &* +@all -publish").await;
    let node = super::start_node(&url, "node").await;
    // The log has a thread of its own.
    until("the refusal is in the log", SOON, async || node.stderr().contains("redis refuses a command")).await;
    let log = node.stderr();
    assert!(log.contains("the user of REDIS_URL needs +publish"), "{log}");
    assert!(log.contains("has no permissions to run the 'publish' command"), "Redis's own words: {log}");
    let mut socket = Socket::join(node.addr, "otherRoom").await;
    let refused = socket.request(r#"{"event":"say","room":"otherRoom","message":"hello"}"#).await;
    let message = "the backend refused it: nothing was changed";
    assert_eq!(refused["error"], json!({ "code": "unavailable", "message": message }));
}

#[tokio::test]
async fn a_boot_that_lacks_a_right_ends_with_the_name_of_the_right() {
    let redis = Redis::start().await;
    let commands = user(&redis, "reader", "~* &* -@all +@read +@pubsub +@connection +@scripting").await;
    let channels = user(&redis, "deaf", "~* resetchannels +@all").await;
    let keys = user(&redis, "stranger", "~other:* &* +@all").await;
    let (commands, channels, keys) =
        tokio::join!(refused_boot(&commands), refused_boot(&channels), refused_boot(&keys));
    assert!(commands.contains("all commands that the guide lists"), "{commands}");
    assert!(channels.contains("the user of REDIS_URL needs the channels &tour &tour:*"), "{channels}");
    assert!(channels.contains("error: the backend refuses: NOPERM"), "{channels}");
    assert!(keys.contains("the user of REDIS_URL needs the keys ~actionhero:* ~phalanx:tour:* ~resque:*"), "{keys}");
}

/// One channel for which a right is missing costs the others nothing.
#[tokio::test]
async fn a_room_whose_channel_is_refused_leaves_the_others_subscribed() {
    let redis = Redis::start().await;
    let url = user(&redis, "app", "~* resetchannels &tour &tour:node:* &tour:room:defaultRoom +@all").await;
    let node = super::start_node(&url, "node").await;
    let mut member = Socket::join(node.addr, "defaultRoom").await;
    let joined = Instant::now();
    let mut other = Socket::connect(node.addr).await;
    let refused = other.request(r#"{"event":"roomAdd","room":"otherRoom"}"#).await;
    assert_eq!(refused["error"]["message"], "the backend refused it: nothing was changed", "{refused}");
    assert!(joined.elapsed() < Duration::from_secs(2), "at once: {:?}", joined.elapsed());
    member.send(r#"{"event":"say","room":"defaultRoom","message":"hello"}"#).await;
    assert_eq!(member.next_in("user").await["message"], "hello");
    assert!(!node.stderr().contains("broke off"), "{}", node.stderr());
}

/// The events of the node itself that a socket receives until it gets the response to a request.
async fn events(socket: &mut Socket) -> Vec<Value> {
    socket.send(r#"{"event":"detailsView","messageId":"last"}"#).await;
    let mut events = Vec::new();
    loop {
        let frame = socket.read().await;
        if frame["messageId"] == "last" {
            return events;
        }
        if frame["context"] == "api" {
            events.push(json!([frame["event"], frame["room"]]));
        }
    }
}

#[tokio::test]
async fn sockets_in_rooms_are_notified_that_their_node_is_cut_off_and_of_the_gaps_when_it_is_back() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let node = super::start_node(&redis.url_through(proxy.addr()), "node").await;
    let mut member = super::sockets(node.addr, 1, &["defaultRoom", "otherRoom"]).await.remove(0);
    let mut outsider = Socket::connect(node.addr).await;
    proxy.cut();
    let cut = Instant::now();
    assert_eq!(member.next_in("api").await, json!({ "context": "api", "event": "away" }));
    let took = cut.elapsed();
    check_time("cut off: members are notified", took, Duration::from_secs(3));
    assert!(took >= Duration::from_secs(3), "{took:?}");
    sleep_until(cut + Duration::from_secs(9)).await; // the length of the cut
    assert_eq!(events(&mut member).await, [] as [Value; 0], "once");
    proxy.restore();
    let mut seen = Vec::new();
    until("a gap of each room arrives", BACK, async || {
        seen.extend(events(&mut member).await);
        ["defaultRoom", "otherRoom"].iter().all(|room| seen.contains(&json!(["gap", room])))
    })
    .await;
    assert!(seen.iter().all(|event| event[0] == "gap"), "{seen:?}");
    assert_eq!(events(&mut outsider).await, [] as [Value; 0], "it is in no room");
}

/// A node with sockets that are in 20 rooms each, and the Redis of it.
async fn crowded(count: usize) -> (Redis, Process, Vec<Socket>) {
    let redis = Redis::start().await;
    let rooms: Vec<String> = (0..20).map(|number| format!("room{number}")).collect();
    let url = redis.url();
    let rooms_text = rooms.join(",");
    // So that closing them takes no time of its own.
    let drain = ("PHALANX__WEBSOCKET__DRAIN", "100ms");
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__ROOMS__START", &rooms_text), drain];
    let node = Process::start("tour", &environment).await;
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let sockets = super::sockets(node.addr, count, &rooms).await;
    (redis, node, sockets)
}

/// The hook of the application that runs at each leave waits for Redis, too.
#[tokio::test]
async fn sockets_that_close_while_redis_is_away_are_gone_after_one_timeout() {
    let (mut redis, node, mut sockets) = crowded(10).await;
    let connections = async || {
        let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("phalanx_connections "));
        line.unwrap().parse::<usize>().unwrap()
    };
    redis.kill().await;
    for (left, fault) in [(5, "just now"), (0, "for a while")] {
        sockets.truncate(left);
        let took = until("the sockets are gone", SOON, async || connections().await == left).await;
        check_time(&format!("sockets in 20 rooms, Redis away {fault}: gone"), took, COMMAND_TIMEOUT);
    }
    redis.start_again().await;
    for room in ["room0", "room19"] {
        until("all are unlisted", BACK, async || super::members(node.addr, room).await == 0).await;
    }
}

#[tokio::test]
async fn a_node_stops_in_time_while_redis_is_away() {
    let (mut redis, mut node, _sockets) = crowded(5).await;
    redis.kill().await;
    let killed = Instant::now();
    node.signal(Signal::TERM);
    let status = node.ended().await;
    let took = killed.elapsed();
    // The leaves and the hooks of the application wait one after the other.
    check_time("five sockets in 20 rooms, Redis away: stopped", took, COMMAND_TIMEOUT);
    assert!(status.success(), "{}", node.stderr());
}

#[tokio::test]
async fn two_nodes_of_one_id_both_warn() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, other) = tokio::join!(super::start_node(&url, "same"), super::start_node(&url, "same"));
    for node in [&one, &other] {
        until("it warns", SOON, async || node.stderr().contains("another node has this id")).await;
    }
}

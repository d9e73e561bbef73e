use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use phalanx_testkit::{Process, Proxy, Redis, Signal, check_time, print};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    AT_ONCE, Cluster, PRESENCE, REAP, REAPED, apply, is_full_size, members, nodes_of, rounds, sockets, start_node_with,
    start_nodes, until,
};
use crate::client::{Socket, get};

/// A thousand members: 250 sockets in four rooms each.
const SOCKETS: usize = 250;

/// The sockets where all rooms have presence: each join and leave costs every member a message, so three times as many
/// sockets cost nine times as much. All of them with `ROUNDS`.
fn sockets_with_presence() -> usize {
    if is_full_size() { SOCKETS } else { SOCKETS / 3 }
}

const ROOMS: [&str; 4] = ["otherRoom", "second", "third", "fourth"];

async fn create_rooms(cluster: &Cluster) {
    for room in &ROOMS[1..] {
        let created =
            crate::client::post_json(cluster.addr(0), "/api/rooms", &json!({ "name": room }).to_string()).await;
        assert_eq!(created.status, 200);
    }
}

/// The number of times that the leave hook ran, by room and member.
pub(super) async fn leaves(cluster: &Cluster, node: usize) -> HashMap<String, usize> {
    let listed = get(cluster.addr(node), "/api/lists/leaves").await.json();
    let mut counted = HashMap::new();
    for leave in listed["values"].as_array().cloned().unwrap_or_default() {
        *counted.entry(leave.as_str().unwrap().to_owned()).or_default() += 1;
    }
    counted
}

/// The member in the next presence message with this event; frames before it are dropped.
pub(super) async fn next_presence(socket: &mut Socket, event: &str) -> String {
    loop {
        let frame = socket.next_in("presence").await;
        if frame["event"] == event {
            return frame["member"].as_str().unwrap().to_owned();
        }
    }
}

/// Joins the room with presence and waits for its own join: every earlier join has been announced by then.
pub(super) async fn observe(addr: std::net::SocketAddr) -> Socket {
    let mut socket = Socket::join(addr, "defaultRoom").await;
    while next_presence(&mut socket, "join").await != socket.id() {}
    socket
}

async fn apply_within(addr: std::net::SocketAddr, id: &str, limit_ms: u64) -> crate::client::Response {
    let body = json!({ "method": "details", "timeoutMs": limit_ms }).to_string();
    crate::client::post_json(addr, &format!("/api/connections/{id}/apply"), &body).await
}

/// The presence messages that a socket receives before its own node answers a request.
pub(super) async fn presence_so_far(socket: &mut Socket) -> Vec<(String, String)> {
    socket.send(r#"{"event":"detailsView","messageId":"end"}"#).await;
    let mut announced = Vec::new();
    loop {
        let frame = socket.read().await;
        if frame["messageId"] == "end" {
            return announced;
        }
        if frame["context"] == "presence" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            announced.push((text(&frame["event"]), text(&frame["member"])));
        }
    }
}

/// The pause between two calls to a dead node: enough calls for a 99th percentile, and time for the nodes to find it dead.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls a connection of a dead node again and again until it is not found.
///
/// Checks that the calls end as unreachable until the reap. Only in the first moment, before Redis has noticed the dead
/// node's connection, may they end late, as many as fit into that time. Returns how many were unreachable.
async fn call_until_not_found(addr: std::net::SocketAddr, id: String, killed: Instant) -> usize {
    let limit_ms = AT_ONCE.as_millis() as u64;
    let (mut late, mut code) = (0, apply_within(addr, &id, limit_ms).await.error_code());
    while code == "late" {
        late += 1;
        check_time("calls to a dead node are late", AT_ONCE * late, AT_ONCE);
        code = apply_within(addr, &id, limit_ms).await.error_code();
    }
    let mut unreachable = 0;
    while code == "unreachable" {
        unreachable += 1;
        assert!(killed.elapsed() < REAPED, "the node is still not reaped");
        sleep(PAUSE).await;
        code = apply_within(addr, &id, 4000).await.error_code();
    }
    assert_eq!(code, "not_found");
    check_time("killed: calls are not found", killed.elapsed(), REAP);
    unreachable
}

/// How long the node itself took for the last calls to connections, the longest first. Their client waits besides until
/// it runs again, which may take long on a busy machine.
fn times_of_calls(node: &Process, last: usize) -> Vec<Duration> {
    let log = node.stderr();
    let lines = log.lines().rev().filter(|line| line.contains("action=\"connectionApply\""));
    let took = |line: &str| {
        let (_, took) = line.split_once("took=")?;
        let took = took.split(' ').next()?;
        let unit = took.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.');
        let seconds = match unit {
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            _ => return None,
        };
        Some(Duration::from_secs_f64(took.strip_suffix(unit)?.parse::<f64>().ok()? * seconds))
    };
    let mut times: Vec<_> = lines.take(last).map(|line| took(line).expect("its line has the time")).collect();
    assert_eq!(times.len(), last, "each call has a line");
    times.sort_unstable_by(|one, other| other.cmp(one));
    times
}

#[tokio::test]
async fn members_of_a_killed_node_and_no_others_leave_every_list_once() {
    let mut cluster = Cluster::with_presence(3, &ROOMS.join(",")).await;
    create_rooms(&cluster).await;
    let count = sockets_with_presence();
    for round in 0..rounds() {
        cluster.redis.command("DEL actionhero:cache:leaves").await; // a list is read up to 10,000 items
        let doomed = sockets(cluster.addr(2), count, &ROOMS).await;
        let survivors = sockets(cluster.addr(1), 10, &ROOMS).await;
        let mut observer = Socket::connect(cluster.addr(0)).await;
        for room in ROOMS {
            let joined = observer.request_by_id(&json!({ "event": "roomAdd", "room": room, "messageId": room })).await;
            assert_eq!(joined["status"], "OK", "{joined}");
            while next_presence(&mut observer, "join").await != observer.id() {}
        }
        let surviving = survivors.len() as u64 + 1;
        assert_eq!(members(cluster.addr(0), "otherRoom").await, count as u64 + surviving);

        cluster.nodes[2].signal(Signal::KILL);
        let killed = Instant::now();
        cluster.nodes[2].ended().await;
        let calling = tokio::spawn(call_until_not_found(cluster.addr(0), doomed[0].id(), killed));
        for room in ROOMS {
            until("its members are gone", REAPED, async || members(cluster.addr(1), room).await == surviving).await;
        }
        let gone = killed.elapsed();
        let mut left = BTreeSet::new();
        while left.len() < count * ROOMS.len() {
            let leave = observer.next_in("presence").await;
            assert_eq!(leave["event"], "leave", "{leave}");
            let of = |name: &str| leave[name].as_str().unwrap().to_owned();
            assert!(left.insert((of("room"), of("member"))), "announced twice: {leave}");
        }
        let announced = killed.elapsed();
        let ids: Vec<String> = doomed.iter().map(Socket::id).collect();
        let expected = ROOMS.iter().flat_map(|room| ids.iter().map(|id| ((*room).to_owned(), id.clone()))).collect();
        assert!(left == expected, "the members of the dead node left, and no others");
        until("the hook ran for all leaves", REAPED, async || leaves(&cluster, 0).await.len() == left.len()).await;
        assert!(leaves(&cluster, 0).await.values().all(|times| *times == 1), "the hook ran once for each leave");
        let unreachable = calling.await.unwrap();
        assert!(unreachable > 0, "they are unreachable until the reap");
        let times = times_of_calls(&cluster.nodes[0], unreachable + 1);
        print(format_args!("killed, round {round}: {unreachable} calls are unreachable, {} members leave", left.len()));
        // The node shares two cores with the tests beside this one: its own clock runs on while others have them.
        print(format_args!("killed: the slowest of those calls: {:.1?}", times[0]));
        check_time("killed: 99 of 100 of those calls", times[times.len() / 100], AT_ONCE);
        check_time("killed: members are unlisted", gone, REAP);
        check_time("killed: their leaves are announced", announced, REAP);
        assert_eq!(presence_so_far(&mut observer).await, [], "nothing more is announced");
        drop((survivors, observer));
        // Rooms are left one after the other, each after its hooks: once the last one is empty, the hooks ran for all
        // leaves.
        until("the others have left", REAPED, async || members(cluster.addr(1), ROOMS[3]).await == 0).await;
        cluster.nodes[2] = start_node_with(&cluster.redis.url(), "n2", &ROOMS.join(",")).await;
        cluster.until_all_list(3).await;
    }
}

#[tokio::test]
async fn a_reaper_that_is_killed_midway_is_replaced_by_another() {
    for round in 0..rounds() {
        let redis = Redis::start().await;
        let proxy = Proxy::before(redis.addr()).await;
        let nodes = start_nodes(&redis.url_through(proxy.addr()), 4, PRESENCE).await;
        let cluster = Cluster { redis, nodes };
        cluster.until_all_list(4).await;
        create_rooms(&cluster).await;
        let doomed = sockets(cluster.addr(3), SOCKETS, &ROOMS).await;
        let observed = sockets(cluster.addr(3), 20, &["defaultRoom"]).await;
        let (mut observers, mut names) = (Vec::new(), HashMap::new());
        for node in 0..3 {
            observers.push(observe(cluster.addr(node)).await);
            names.insert(cluster.generation(node).await, node);
        }
        let expected = SOCKETS * ROOMS.len() + observed.len();
        // A hook pushes to a list: all of them take two seconds then.
        proxy.delay(Duration::from_millis(30));
        cluster.nodes[3].signal(Signal::KILL);
        let killed = Instant::now();
        let mut claimed = String::new();
        until("a node claims the reap", REAPED, async || {
            claimed = cluster.redis.command("HVALS phalanx:tour:reapers").await;
            claimed.contains('$')
        })
        .await;
        let reaper = names.iter().find(|(name, _)| claimed.contains(*name)).map(|(_, node)| *node);
        let Some(reaper) = reaper else { panic!("{claimed:?} is one of {names:?}") };
        let leaves_so_far = async || {
            let listed = cluster.redis.command("LLEN actionhero:cache:leaves").await;
            listed.trim_start_matches(':').trim_end().parse::<usize>().unwrap()
        };
        until("the hook ran for some leaves", REAPED, async || leaves_so_far().await > 0).await;
        cluster.nodes[reaper].signal(Signal::KILL);
        proxy.delay(Duration::ZERO);
        let interrupted = leaves_so_far().await;
        assert!(interrupted < expected, "it was killed too late: {interrupted} of {expected}");
        let last = (reaper + 1) % 3;
        let addr = cluster.addr(last);
        until("both are gone", REAPED, async || nodes_of(addr).await.len() == 2).await;
        for room in ROOMS {
            until("its members are gone", REAPED, async || members(addr, room).await == 0).await;
        }
        let expected = expected + 1; // and the observer on the reaper
        until("the hook ran for all leaves", REAPED, async || leaves(&cluster, last).await.len() == expected).await;
        let twice = leaves(&cluster, last).await.values().filter(|times| **times > 1).count();
        let all = killed.elapsed();
        print(format_args!(
            "reaper killed, round {round}: after {interrupted} leaves; all after {all:?}, {twice} hooks ran again"
        ));
        assert!(twice <= 200, "{twice} hooks ran again");
        let mut expected: Vec<_> = observed.iter().map(Socket::id).collect();
        expected.push(observers[reaper].id());
        expected.sort();
        let mut left = Vec::new();
        let observer = &mut observers[last];
        while left.len() < expected.len() {
            left.push(next_presence(observer, "leave").await);
        }
        let more = presence_so_far(observer).await;
        left.sort();
        assert_eq!((left, more), (expected, vec![]), "each leave is announced once");
        drop(doomed);
    }
}

#[tokio::test]
async fn a_node_frozen_past_its_lease_returns_with_a_new_generation_and_serves_its_clients() {
    for _ in 0..rounds() {
        let cluster = Cluster::start(2).await;
        let mut frozen = observe(cluster.addr(1)).await;
        let mut other = observe(cluster.addr(0)).await;
        let before = cluster.generation(1).await;
        let id = frozen.id();
        cluster.nodes[1].freeze();
        let stopped = Instant::now();
        let addr = cluster.addr(0);
        let late = tokio::spawn(async move { apply(addr, &id, "set", json!(["stale", true])).await });
        assert_eq!(next_presence(&mut other, "leave").await, frozen.id());
        check_time("frozen: its member's leave is announced", stopped.elapsed(), REAP);
        assert_eq!(late.await.unwrap().error_code(), "late");
        assert_eq!(apply(addr, &frozen.id(), "details", json!(null)).await.error_code(), "not_found");
        sleep_until(stopped + Duration::from_secs(15)).await; // the length of the freeze is the fault
        cluster.nodes[1].thaw();
        assert_eq!(next_presence(&mut other, "join").await, frozen.id());
        assert_ne!(cluster.generation(1).await, before);
        assert_eq!(members(addr, "defaultRoom").await, 2);
        let stale = apply(addr, &frozen.id(), "get", json!(["stale"])).await;
        assert_eq!((stale.status, &stale.json()["result"]), (200, &json!(null)), "a call that had timed out was run");
        other.request(r#"{"event":"say","room":"defaultRoom","message":"welcome back"}"#).await;
        assert_eq!(frozen.next_in("user").await["message"], "welcome back");
        assert_eq!(apply(addr, &frozen.id(), "set", json!(["k", 1])).await.status, 200);
    }
}

#[tokio::test]
async fn a_node_frozen_for_less_than_its_lease_is_not_reaped() {
    let cluster = Cluster::start(2).await;
    let frozen = observe(cluster.addr(1)).await;
    let mut other = observe(cluster.addr(0)).await;
    let before = cluster.generation(1).await;
    let lease = async || cluster.redis.command(&format!("ZSCORE phalanx:tour:leases {before}")).await;
    for round in 0..rounds() {
        // A lease of 5 s that was renewed just now outlasts 4 s.
        let renewed = lease().await;
        until("the lease is renewed", REAPED, async || lease().await != renewed).await;
        cluster.nodes[1].freeze();
        sleep_until(Instant::now() + Duration::from_secs(4)).await; // the length of the freeze is the fault
        cluster.nodes[1].thaw();
        assert_eq!(apply(cluster.addr(0), &frozen.id(), "set", json!(["k", 1])).await.status, 200);
        assert_eq!(cluster.generation(1).await, before);
        assert_eq!(presence_so_far(&mut other).await, [], "no member left");
        print(format_args!("frozen for 4 s, round {round}: no node is reaped"));
    }
}

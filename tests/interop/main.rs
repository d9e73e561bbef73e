//! A cluster of a real Actionhero node and nodes of ours: `just interop`.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

use std::net::SocketAddr;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{INTEROP, Process, Redis, print};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "the whole-node tests use more of it")]
mod client;
mod peer;
mod tasks;

use client::{Socket, get, post_json};
use peer::Actionhero;

const TOKEN: &str = "lab-token";

/// A real Actionhero node, a tour node in its own process, and a node of ours in this process.
struct Mixed {
    redis: Redis,
    theirs: Actionhero,
    tour: Process,
    ours: RunningApp,
}

impl Mixed {
    async fn start() -> Self {
        let redis = Redis::start().await;
        redis.command(&format!("ACL SETUSER phalanx {INTEROP}")).await;
        let (theirs, tour, ours) =
            tokio::join!(Actionhero::start(redis.addr(), TOKEN), tour(&redis), in_process(&redis));
        Self { redis, theirs, tour, ours }
    }

    /// Waits until nodes of both kinds list `expected` members.
    async fn members(&mut self, room: &str, expected: usize) {
        let started = Instant::now();
        loop {
            let theirs = self.theirs.run("return chatRoom.roomStatus(args)", json!(room)).await.unwrap();
            let ours = self.ours.node().rooms().status(room).await.unwrap().members.count;
            if (theirs["membersCount"].as_u64(), ours) == (Some(expected as u64), expected) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{expected} members of {room}: {theirs}, {ours}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Checks that no node crashed and that messages of each node still reach all others, then stops ours.
    async fn finish(mut self) {
        self.theirs.is_alive().await;
        let mut sockets = [
            Socket::join(self.tour.addr, "otherRoom").await,
            Socket::join(self.ours.addr(), "otherRoom").await,
            join_theirs(self.theirs.addr, "otherRoom").await,
        ];
        for sender in 0..sockets.len() {
            let message = format!("from {sender}");
            say(&mut sockets[sender], "otherRoom", &message).await;
            for socket in &mut sockets {
                assert_eq!(socket.next_in("user").await["message"], message);
            }
        }
        self.ours.stop().await;
    }
}

async fn tour(redis: &Redis) -> Process {
    let url = redis.url();
    let environment = [
        ("REDIS_URL", url.as_str()),
        ("PHALANX__CLUSTER__INTEROP", "true"),
        ("PHALANX__CLUSTER__INTEROP_TOKEN", TOKEN),
    ];
    Process::start("tour", &environment).await
}

async fn in_process(redis: &Redis) -> RunningApp {
    let mut config = Config::default();
    config.cluster.interop = true;
    config.cluster.interop_token = TOKEN.to_owned();
    config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.admin.bind = String::new();
    App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
}

/// Connects to their node. Its first frame lacks the id, so that is requested.
async fn connect_theirs(addr: SocketAddr) -> Socket {
    let mut socket = Socket::connect_with(addr, "/primus", &[]).await.unwrap();
    let details = socket.request(r#"{"event":"detailsView"}"#).await;
    socket.welcome["id"] = details["data"]["id"].clone();
    socket
}

async fn join_theirs(addr: SocketAddr, room: &str) -> Socket {
    let mut socket = connect_theirs(addr).await;
    let joined = socket.request(&json!({ "event": "roomAdd", "room": room }).to_string()).await;
    assert_eq!(joined["status"], "OK", "{joined}");
    socket
}

async fn say(socket: &mut Socket, room: &str, message: &str) {
    socket.send(&json!({ "event": "say", "room": room, "message": message }).to_string()).await;
}

async fn apply(addr: SocketAddr, id: &str, method: &str, args: Value) -> Result<Value, String> {
    let body = json!({ "method": method, "args": args }).to_string();
    let answered = post_json(addr, &format!("/api/connections/{id}/apply"), &body).await;
    if answered.status == 200 { Ok(answered.json()["result"].take()) } else { Err(answered.error_code()) }
}

#[tokio::test]
async fn all_members_receive_all_messages_in_one_order() {
    const EACH: usize = 200;
    let mixed = Mixed::start().await;
    let mut sockets = vec![
        Socket::join(mixed.tour.addr, "defaultRoom").await,
        Socket::join(mixed.tour.addr, "defaultRoom").await,
        join_theirs(mixed.theirs.addr, "defaultRoom").await,
        join_theirs(mixed.theirs.addr, "defaultRoom").await,
    ];
    let count = sockets.len();
    for number in 0..EACH {
        for (sender, socket) in sockets.iter_mut().enumerate() {
            say(socket, "defaultRoom", &format!("{sender} {number}")).await;
        }
    }
    let mut received = Vec::new();
    for socket in &mut sockets {
        let mut all = Vec::new();
        for _ in 0..EACH * count {
            let frame = socket.next_in("user").await;
            assert_eq!(frame["room"], "defaultRoom");
            all.push((frame["from"].clone(), frame["message"].clone(), frame["sentAt"].clone()));
        }
        received.push(all);
    }
    for other in &received[1..] {
        assert_eq!(&received[0], other, "all members receive one order");
    }
    for (sender, socket) in sockets.iter().enumerate() {
        let own = received[0].iter().filter(|(from, ..)| *from == socket.id());
        let messages: Vec<_> = own.map(|(_, message, _)| message).collect();
        let expected: Vec<Value> = (0..EACH).map(|number| json!(format!("{sender} {number}"))).collect();
        assert_eq!(messages, expected.iter().collect::<Vec<_>>(), "nothing lost, nothing doubled");
    }
    print(format_args!("{} deliveries of {} messages", EACH * count * count, EACH * count));
    mixed.finish().await;
}

#[tokio::test]
async fn connections_are_called_both_ways() {
    let mut mixed = Mixed::start().await;
    let mut ours = Socket::connect(mixed.tour.addr).await;
    let mut theirs = connect_theirs(mixed.theirs.addr).await;
    let apply_there = "return api.connections.apply(...args)";

    // They call one of ours.
    let id = ours.id();
    let details = mixed.theirs.run(apply_there, json!([id])).await.unwrap();
    assert_eq!(
        (&details["id"], &details["type"], &details["canChat"]),
        (&json!(id), &json!("websocket"), &json!(true))
    );
    let set = mixed.theirs.run(apply_there, json!([id, "set", ["level", 3]])).await.unwrap();
    assert_eq!(set["level"], 3);
    mixed.theirs.run(apply_there, json!([id, "sendMessage", { "hello": "there" }])).await.unwrap();
    assert_eq!(ours.read().await["hello"], "there");
    let remote = mixed.theirs.run(apply_there, json!([id, "authorize", [{ "level": 7 }]])).await.unwrap();
    assert_eq!(remote["level"], 7);
    let add = "return chatRoom.addMember(...args)";
    assert_eq!(mixed.theirs.run(add, json!([id, "otherRoom"])).await, Ok(json!(true)));
    mixed.members("otherRoom", 1).await;
    let remove = "return chatRoom.removeMember(...args)";
    assert_eq!(mixed.theirs.run(remove, json!([id, "otherRoom"])).await, Ok(json!(true)));
    mixed.members("otherRoom", 0).await;
    let refused = mixed.theirs.run(apply_there, json!([id, "explode", []])).await;
    assert_eq!(refused, Err("Error: RPC Timeout".to_owned()), "their calls have no errors, only timeouts");

    // We call one of theirs.
    let (addr, id) = (mixed.tour.addr, theirs.id());
    let details = apply(addr, &id, "", json!(null)).await.unwrap();
    assert_eq!((&details["id"], &details["type"]), (&json!(id), &json!("websocket")));
    assert_eq!(apply(addr, &id, "set", json!(["level", { "a": [1] }])).await, Ok(json!(true)));
    assert_eq!(apply(addr, &id, "get", json!(["level"])).await, Ok(json!({ "a": [1] })));
    assert_eq!(apply(addr, &id, "sendMessage", json!("hello")).await, Ok(json!(true)));
    assert_eq!(theirs.read().await["message"], "hello");
    let joined = theirs.request(r#"{"event":"roomAdd","room":"otherRoom"}"#).await;
    assert_eq!(joined["status"], "OK");
    assert_eq!(apply(addr, &id, "roomLeave", json!("otherRoom")).await, Ok(json!(true)));
    mixed.members("otherRoom", 0).await;
    mixed.theirs.is_alive().await;
    assert_eq!(apply(addr, &id, "destroy", json!(null)).await, Ok(json!(true)));
    assert_eq!(
        apply(addr, &id, "details", json!(null)).await,
        Err("late".to_owned()),
        "no node replies that the connection is gone"
    );
    mixed.finish().await;
}

#[tokio::test]
async fn no_call_of_ours_crashes_their_node() {
    let mut mixed = Mixed::start().await;
    let theirs = connect_theirs(mixed.theirs.addr).await;
    let second = tour(&mixed.redis).await;
    let (addr, other_addr, id) = (mixed.tour.addr, second.addr, theirs.id());
    let fields = ["rooms", "params", "canChat", "rawConnection", "destroy", "id", "constructor", "toString"];
    for field in fields {
        let set = apply(addr, &id, "set", json!([field, null])).await;
        assert_eq!(set, Err("invalid_input".to_owned()), "{field}");
    }
    for (method, args) in [
        ("explode", json!([])),
        ("roomAdd", json!("defaultRoom")),
        ("roomLeave", json!("defaultRoom")),
        ("roomLeave", json!("nowhere")),
        ("sendFile", json!("a\u{0}b")),
        ("sendFile", json!("")),
    ] {
        assert!(apply(addr, &id, method, args.clone()).await.is_err(), "{method} {args}");
    }
    for args in
        [json!(null), json!(""), json!(0), json!([null]), json!({ "error": { "a": 1 } }), json!({ "context": 5 })]
    {
        assert_eq!(apply(addr, &id, "sendMessage", args.clone()).await, Ok(json!(true)), "{args}");
    }
    for path in ["../../etc/passwd", "nothing.txt", "/"] {
        assert_eq!(apply(addr, &id, "sendFile", json!(path)).await, Ok(json!(true)), "{path}");
    }
    for message in [json!(null), json!(""), json!(0), json!([]), json!({ "__proto__": null })] {
        mixed.ours.node().rooms().say("defaultRoom", &message).await.unwrap();
    }
    // Two nodes remove the member from a room while it leaves by itself, and both close it.
    let close = async |addr: SocketAddr, id: &str| {
        let body = json!({ "method": "destroy", "timeoutMs": 300 }).to_string();
        post_json(addr, &format!("/api/connections/{id}/apply"), &body).await
    };
    for round in 0..50 {
        let mut member = join_theirs(mixed.theirs.addr, "defaultRoom").await;
        let id = member.id();
        let remove = |addr: SocketAddr| apply(addr, &id, "roomLeave", json!("defaultRoom"));
        let leave = member.request(r#"{"event":"roomLeave","room":"defaultRoom"}"#);
        let (one, other, itself) = tokio::join!(remove(addr), remove(other_addr), leave);
        let left = one.is_ok() || other.is_ok() || itself["status"] == "OK";
        assert!(left, "round {round}: {one:?}, {other:?}, {itself}");
        mixed.members("defaultRoom", 0).await;
        let (one, other) = tokio::join!(close(addr, &id), close(other_addr, &id));
        assert!(one.status == 200 || other.status == 200, "round {round}: {one:?}, {other:?}");
        member.closed().await;
    }
    mixed.theirs.is_alive().await;
    mixed.finish().await;
}

/// With such a middleware, their own `removeMember` fails on the member's node, which crashes.
#[tokio::test]
async fn their_middleware_prevents_no_removal_of_a_member() {
    let mut mixed = Mixed::start().await;
    let keep = "chatRoom.addMiddleware({ name: 'keeper', leave: (connection, room) => {
        if (room === args) throw new Error('refused');
    } })";
    mixed.theirs.run(keep, json!("club")).await.unwrap();
    let rooms = mixed.ours.node().rooms().clone();
    rooms.create("club").await.unwrap();
    let mut members = [join_theirs(mixed.theirs.addr, "club").await, join_theirs(mixed.theirs.addr, "club").await];
    let left = apply(mixed.tour.addr, &members[0].id(), "roomLeave", json!("club")).await;
    assert_eq!(left, Ok(json!(true)));
    mixed.members("club", 1).await;
    rooms.destroy("club").await.unwrap();
    assert_eq!(members[1].next_in("user").await["message"], "this room has been deleted");
    for member in &mut members {
        let details = member.request(r#"{"event":"detailsView"}"#).await;
        assert_eq!(details["data"]["rooms"], json!([]));
    }
    drop(members);
    mixed.finish().await;
}

/// A response that is written twice crashes an Actionhero node.
#[tokio::test]
async fn an_http_request_that_runs_there_is_sent_nothing() {
    let mut mixed = Mixed::start().await;
    let mut request = TcpStream::connect(mixed.theirs.addr).await.unwrap();
    let head =
        "POST /api/status HTTP/1.1\r\nHost: there\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    request.write_all(head.as_bytes()).await.unwrap();
    let find = "return Object.values(api.connections.connections).find((one) => one.type === 'web')?.id";
    let started = Instant::now();
    let id = loop {
        if let Some(id) = mixed.theirs.run(find, json!(null)).await.unwrap().as_str() {
            break id.to_owned();
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the request has a connection");
    };
    for (method, args) in [("sendMessage", json!("hello")), ("sendFile", json!("simple.html"))] {
        assert_eq!(apply(mixed.tour.addr, &id, method, args).await, Err("forbidden".to_owned()), "{method}");
    }
    request.write_all(b"}").await.unwrap();
    let mut status = [0; 9];
    request.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 ");
    mixed.finish().await;
}

#[tokio::test]
async fn cache_and_locks_are_shared() {
    let mut mixed = Mixed::start().await;
    let node = mixed.ours.node().clone();
    let (cache, locks) = (node.cache(), node.locks());
    mixed.theirs.run("return cache.save('theirs', { a: [1, 2] }, 60000)", json!(null)).await.unwrap();
    let loaded = cache.load::<Value>("theirs").await.unwrap().unwrap();
    assert_eq!(loaded.value, json!({ "a": [1, 2] }));
    cache.save("ours", &json!({ "b": "ü" }), Some(Duration::from_secs(60))).await.unwrap();
    let loaded = mixed.theirs.run("return cache.load('ours')", json!(null)).await.unwrap();
    assert_eq!((&loaded["value"], loaded["createdAt"].is_u64()), (&json!({ "b": "ü" }), true));
    mixed.theirs.run("return cache.push('list', { n: 1 })", json!(null)).await.unwrap();
    cache.push("list", &json!({ "n": 2 })).await.unwrap();
    assert_eq!(mixed.theirs.run("return cache.listLength('list')", json!(null)).await, Ok(json!(2)));
    assert_eq!(cache.pop::<Value>("list").await.unwrap(), Some(json!({ "n": 1 })));
    assert_eq!(mixed.theirs.run("return cache.pop('list')", json!(null)).await, Ok(json!({ "n": 2 })));

    let lock = locks.try_lock("job", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(mixed.theirs.run("return cache.lock('job', 1000)", json!(null)).await, Ok(json!(false)));
    let refused = mixed.theirs.run("return cache.save('job', 1)", json!(null)).await;
    assert_eq!(refused, Err("Error: Object locked".to_owned()));
    drop(lock); // released in the background
    let started = Instant::now();
    while mixed.theirs.run("return cache.lock('job', 60000)", json!(null)).await != Ok(json!(true)) {
        assert!(started.elapsed() < Duration::from_secs(10), "the lock is released");
    }
    assert!(locks.try_lock("job", Duration::from_secs(1)).await.unwrap().is_none());
    assert_eq!(mixed.theirs.run("return cache.unlock('job')", json!(null)).await, Ok(json!(true)));
    assert!(locks.try_lock("job", Duration::from_secs(1)).await.unwrap().is_some());
    mixed.finish().await;
}

/// Destroying a room with a member on another node crashes clusters of Actionhero alone.
#[tokio::test]
async fn rooms_are_destroyed_by_either_side_and_no_node_crashes() {
    let mut mixed = Mixed::start().await;
    for round in 0..20 {
        let room = format!("club{round}");
        match round % 2 {
            0 => mixed.ours.node().rooms().create(&room).await.unwrap(),
            _ => drop(mixed.theirs.run("return chatRoom.add(args)", json!(room)).await.unwrap()),
        }
        let mut sockets = vec![
            Socket::join(mixed.tour.addr, &room).await,
            Socket::join(mixed.ours.addr(), &room).await,
            join_theirs(mixed.theirs.addr, &room).await,
            join_theirs(mixed.theirs.addr, &room).await,
        ];
        mixed.members(&room, 4).await;
        match round % 4 {
            0 | 1 => mixed.ours.node().rooms().destroy(&room).await.unwrap(),
            _ => drop(mixed.theirs.run("return chatRoom.destroy(args)", json!(room)).await.unwrap()),
        }
        for socket in &mut sockets {
            assert_eq!(socket.next_in("user").await["message"], "this room has been deleted");
        }
        assert!(!mixed.ours.node().rooms().exists(&room).await.unwrap());
        drop(sockets); // each of theirs leaves all rooms in its own list
        mixed.theirs.is_alive().await;
    }
    mixed.finish().await;
}

/// As many joins and leaves as in an hour at ten per second, and clients that disconnect without leaving.
#[tokio::test]
async fn an_hour_of_joins_and_leaves_leaves_no_member_behind() {
    const EVENTS: usize = 36_000;
    const CLIENTS: usize = 24;
    let mut mixed = Mixed::start().await;
    let started = Instant::now();
    let addrs = [mixed.tour.addr, mixed.ours.addr(), mixed.theirs.addr];
    let theirs = mixed.theirs.addr;
    let client = |number: usize| async move {
        let addr = addrs[number % 3];
        let mut done = 0;
        while done < EVENTS / CLIENTS {
            let mut socket = if addr == theirs { connect_theirs(addr).await } else { Socket::connect(addr).await };
            for step in 0..10 {
                let room = ["defaultRoom", "otherRoom"][step % 2];
                for event in ["roomAdd", "say", "roomLeave"] {
                    // Every other client disconnects without leaving.
                    if event == "roomLeave" && step > 7 && number.is_multiple_of(2) {
                        break;
                    }
                    let request =
                        json!({ "event": event, "room": room, "message": "hi", "messageId": format!("m{done}") });
                    let answered = socket.request_by_id(&request).await;
                    assert_eq!(answered["status"], "OK", "{request}: {answered}");
                }
                done += 2;
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(client)).await;
    for room in ["defaultRoom", "otherRoom"] {
        mixed.members(room, 0).await;
    }
    print(format_args!("{EVENTS} joins and leaves of {CLIENTS} clients in {:?}", started.elapsed()));
    let listed = get(mixed.tour.addr, "/api/rooms/defaultRoom").await.json();
    assert_eq!(listed["membersCount"], 0);
    mixed.finish().await;
}

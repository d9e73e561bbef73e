//! A cluster of a real Actionhero node and nodes of ours: `just interop`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::net::SocketAddr;
use std::time::Duration;

use phalanx::Running;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{INTEROP, Process, Redis, tell};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
mod peer;

use client::{Socket, get, post_json};
use peer::Actionhero;

const TOKEN: &str = "lab-token";

/// A real Actionhero node, a tour node, and one of ours that is looked at from inside.
struct Mixed {
    redis: Redis,
    theirs: Actionhero,
    tour: Process,
    ours: Running,
}

impl Mixed {
    async fn start() -> Self {
        let redis = Redis::start().await;
        redis.ask(&format!("ACL SETUSER phalanx {INTEROP}")).await;
        let (theirs, tour, ours) = tokio::join!(Actionhero::start(redis.addr(), TOKEN), tour(&redis), inside(&redis));
        Self { redis, theirs, tour, ours }
    }

    /// Waits until both kinds list so many members.
    async fn members(&mut self, room: &str, expected: usize) {
        let began = Instant::now();
        loop {
            let theirs = self.theirs.run("return chatRoom.roomStatus(args)", json!(room)).await.unwrap();
            let ours = self.ours.node().rooms().status(room).await.unwrap().members.count;
            if (theirs["membersCount"].as_u64(), ours) == (Some(expected as u64), expected) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{expected} members of {room}: {theirs}, {ours}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nobody went down, and everybody still hears everybody.
    async fn ends_well(mut self) {
        self.theirs.is_alive().await;
        let mut sockets = [
            Socket::join(self.tour.addr, "otherRoom").await,
            Socket::join(self.ours.addr(), "otherRoom").await,
            join_theirs(self.theirs.addr, "otherRoom").await,
        ];
        for speaker in 0..sockets.len() {
            let message = format!("from {speaker}");
            say(&mut sockets[speaker], "otherRoom", &message).await;
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

async fn inside(redis: &Redis) -> Running {
    let mut config = Config::default();
    config.cluster.interop = true;
    config.cluster.interop_token = TOKEN.to_owned();
    config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.admin.bind = String::new();
    App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
}

/// A client of theirs: its first frame does not say its id.
async fn connect_theirs(addr: SocketAddr) -> Socket {
    let mut socket = Socket::connect_with(addr, "/primus", &[]).await.unwrap();
    let details = socket.ask(r#"{"event":"detailsView"}"#).await;
    socket.welcome["id"] = details["data"]["id"].clone();
    socket
}

async fn join_theirs(addr: SocketAddr, room: &str) -> Socket {
    let mut socket = connect_theirs(addr).await;
    let joined = socket.ask(&json!({ "event": "roomAdd", "room": room }).to_string()).await;
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
async fn everybody_hears_everybody_in_one_order() {
    const EACH: usize = 200;
    let mixed = Mixed::start().await;
    let mut sockets = vec![
        Socket::join(mixed.tour.addr, "defaultRoom").await,
        Socket::join(mixed.tour.addr, "defaultRoom").await,
        join_theirs(mixed.theirs.addr, "defaultRoom").await,
        join_theirs(mixed.theirs.addr, "defaultRoom").await,
    ];
    let speakers = sockets.len();
    for number in 0..EACH {
        for (speaker, socket) in sockets.iter_mut().enumerate() {
            say(socket, "defaultRoom", &format!("{speaker} {number}")).await;
        }
    }
    let mut heard = Vec::new();
    for socket in &mut sockets {
        let mut all = Vec::new();
        for _ in 0..EACH * speakers {
            let frame = socket.next_in("user").await;
            assert_eq!(frame["room"], "defaultRoom");
            all.push((frame["from"].clone(), frame["message"].clone(), frame["sentAt"].clone()));
        }
        heard.push(all);
    }
    for other in &heard[1..] {
        assert_eq!(&heard[0], other, "one order for everybody");
    }
    for (speaker, socket) in sockets.iter().enumerate() {
        let said: Vec<_> = heard[0].iter().filter(|(from, ..)| *from == socket.id()).map(|(_, said, _)| said).collect();
        let expected: Vec<Value> = (0..EACH).map(|number| json!(format!("{speaker} {number}"))).collect();
        assert_eq!(said, expected.iter().collect::<Vec<_>>(), "nothing lost, nothing doubled");
    }
    tell(format_args!("{} deliveries of {} messages", EACH * speakers * speakers, EACH * speakers));
    mixed.ends_well().await;
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
    assert_eq!(refused, Err("Error: RPC Timeout".to_owned()), "they know no errors");

    // We call one of theirs.
    let (addr, id) = (mixed.tour.addr, theirs.id());
    let details = apply(addr, &id, "", json!(null)).await.unwrap();
    assert_eq!((&details["id"], &details["type"]), (&json!(id), &json!("websocket")));
    assert_eq!(apply(addr, &id, "set", json!(["level", { "a": [1] }])).await, Ok(json!(true)));
    assert_eq!(apply(addr, &id, "get", json!(["level"])).await, Ok(json!({ "a": [1] })));
    assert_eq!(apply(addr, &id, "sendMessage", json!("hello")).await, Ok(json!(true)));
    assert_eq!(theirs.read().await["message"], "hello");
    let joined = theirs.ask(r#"{"event":"roomAdd","room":"otherRoom"}"#).await;
    assert_eq!(joined["status"], "OK");
    assert_eq!(apply(addr, &id, "roomLeave", json!("otherRoom")).await, Ok(json!(true)));
    mixed.members("otherRoom", 0).await;
    mixed.theirs.is_alive().await;
    assert_eq!(apply(addr, &id, "destroy", json!(null)).await, Ok(json!(true)));
    assert_eq!(apply(addr, &id, "details", json!(null)).await, Err("late".to_owned()), "nobody says it is not theirs");
    mixed.ends_well().await;
}

#[tokio::test]
async fn nothing_that_we_call_takes_them_down() {
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
    // Taken out of a room by two at once, by itself at the same time, and closed by two.
    let close = async |addr: SocketAddr, id: &str| {
        let body = json!({ "method": "destroy", "timeoutMs": 300 }).to_string();
        post_json(addr, &format!("/api/connections/{id}/apply"), &body).await
    };
    for round in 0..50 {
        let mut member = join_theirs(mixed.theirs.addr, "defaultRoom").await;
        let id = member.id();
        let out = |addr: SocketAddr| apply(addr, &id, "roomLeave", json!("defaultRoom"));
        let leave = member.ask(r#"{"event":"roomLeave","room":"defaultRoom"}"#);
        let (one, other, itself) = tokio::join!(out(addr), out(other_addr), leave);
        let left = one.is_ok() || other.is_ok() || itself["status"] == "OK";
        assert!(left, "round {round}: {one:?}, {other:?}, {itself}");
        mixed.members("defaultRoom", 0).await;
        let (one, other) = tokio::join!(close(addr, &id), close(other_addr, &id));
        assert!(one.status == 200 || other.status == 200, "round {round}: {one:?}, {other:?}");
        member.closed().await;
    }
    mixed.theirs.is_alive().await;
    mixed.ends_well().await;
}

/// Their own `removeMember` fails in the node of the member then, and the node with it.
#[tokio::test]
async fn a_middleware_of_theirs_that_keeps_members_keeps_nobody_from_being_taken_out() {
    let mut mixed = Mixed::start().await;
    let keep = "chatRoom.addMiddleware({ name: 'keeper', leave: (connection, room) => {
        if (room === args) throw new Error('stay');
    } })";
    mixed.theirs.run(keep, json!("club")).await.unwrap();
    let rooms = mixed.ours.node().rooms();
    rooms.add("club").await.unwrap();
    let mut members = [join_theirs(mixed.theirs.addr, "club").await, join_theirs(mixed.theirs.addr, "club").await];
    let left = apply(mixed.tour.addr, &members[0].id(), "roomLeave", json!("club")).await;
    assert_eq!(left, Ok(json!(true)));
    mixed.members("club", 1).await;
    rooms.destroy("club").await.unwrap();
    assert_eq!(members[1].next_in("user").await["message"], "this room has been deleted");
    for member in &mut members {
        let details = member.ask(r#"{"event":"detailsView"}"#).await;
        assert_eq!(details["data"]["rooms"], json!([]));
    }
    drop(members);
    mixed.ends_well().await;
}

/// A response that is written twice brings an Actionhero node down.
#[tokio::test]
async fn an_http_request_that_runs_there_is_sent_nothing() {
    let mut mixed = Mixed::start().await;
    let mut request = TcpStream::connect(mixed.theirs.addr).await.unwrap();
    let head =
        "POST /api/status HTTP/1.1\r\nHost: there\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    request.write_all(head.as_bytes()).await.unwrap();
    let find = "return Object.values(api.connections.connections).find((one) => one.type === 'web')?.id";
    let began = Instant::now();
    let id = loop {
        if let Some(id) = mixed.theirs.run(find, json!(null)).await.unwrap().as_str() {
            break id.to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the request has a connection");
    };
    for (method, args) in [("sendMessage", json!("hello")), ("sendFile", json!("simple.html"))] {
        assert_eq!(apply(mixed.tour.addr, &id, method, args).await, Err("forbidden".to_owned()), "{method}");
    }
    request.write_all(b"}").await.unwrap();
    let mut status = [0; 9];
    request.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 ");
    mixed.ends_well().await;
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

    let held = locks.try_lock("job", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(mixed.theirs.run("return cache.lock('job', 1000)", json!(null)).await, Ok(json!(false)));
    let refused = mixed.theirs.run("return cache.save('job', 1)", json!(null)).await;
    assert_eq!(refused, Err("Error: Object locked".to_owned()));
    drop(held); // freed soon after
    let began = Instant::now();
    while mixed.theirs.run("return cache.lock('job', 60000)", json!(null)).await != Ok(json!(true)) {
        assert!(began.elapsed() < Duration::from_secs(10), "the lock is freed");
    }
    assert!(locks.try_lock("job", Duration::from_secs(1)).await.unwrap().is_none());
    assert_eq!(mixed.theirs.run("return cache.unlock('job')", json!(null)).await, Ok(json!(true)));
    assert!(locks.try_lock("job", Duration::from_secs(1)).await.unwrap().is_some());
    mixed.ends_well().await;
}

/// Where Actionhero's own nodes fall: a room that goes away under a member of another node.
#[tokio::test]
async fn rooms_are_destroyed_by_either_side_and_nobody_falls() {
    let mut mixed = Mixed::start().await;
    for round in 0..20 {
        let room = format!("club{round}");
        match round % 2 {
            0 => mixed.ours.node().rooms().add(&room).await.unwrap(),
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
        drop(sockets); // each of theirs leaves all rooms it believes to be in
        mixed.theirs.is_alive().await;
    }
    mixed.ends_well().await;
}

/// As many joins and leaves as in an hour of ten each second, and clients that just go.
#[tokio::test]
async fn an_hour_of_joins_and_leaves_leaves_nobody_behind() {
    const EVENTS: usize = 36_000;
    const CLIENTS: usize = 24;
    let mut mixed = Mixed::start().await;
    let began = Instant::now();
    let addrs = [mixed.tour.addr, mixed.ours.addr(), mixed.theirs.addr];
    let theirs = mixed.theirs.addr;
    let client = |number: usize| async move {
        let addr = addrs[number % 3];
        let mut done = 0;
        while done < EVENTS / CLIENTS {
            let mut socket = match addr == theirs {
                true => connect_theirs(addr).await,
                false => Socket::connect(addr).await,
            };
            for step in 0..10 {
                let room = ["defaultRoom", "otherRoom"][step % 2];
                for event in ["roomAdd", "say", "roomLeave"] {
                    // Every other client goes without leaving.
                    if event == "roomLeave" && step > 7 && number.is_multiple_of(2) {
                        break;
                    }
                    let asked =
                        json!({ "event": event, "room": room, "message": "hi", "messageId": format!("m{done}") });
                    let answered = socket.ask_named(&asked).await;
                    assert_eq!(answered["status"], "OK", "{asked}: {answered}");
                }
                done += 2;
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(client)).await;
    for room in ["defaultRoom", "otherRoom"] {
        mixed.members(room, 0).await;
    }
    tell(format_args!("{EVENTS} joins and leaves of {CLIENTS} clients in {:?}", began.elapsed()));
    let listed = get(mixed.tour.addr, "/api/rooms/defaultRoom").await.json();
    assert_eq!(listed["membersCount"], 0);
    mixed.ends_well().await;
}

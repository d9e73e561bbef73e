//! The messages of a node on the channel of Actionhero nodes, and its handling of theirs. The tests play the other
//! side; `just interop` runs a real Actionhero.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{INTEROP, Process, Proxy, Redis, Watch};
use serde_json::{Value, json};

use super::{SOON, apply, config, members, until};
use crate::client::{Socket, get};
use phalanx_core::ConnectionId;

const CHANNEL: &str = "actionhero";

const TOKEN: &str = "lab-token";

/// A Redis whose user has the rights for interop, and a subscriber of every channel.
async fn redis() -> (Redis, Watch) {
    let redis = Redis::start().await;
    redis.command(&format!("ACL SETUSER phalanx {INTEROP}")).await;
    let watch = redis.watch().await;
    (redis, watch)
}

async fn start(redis: &Redis, title: &str) -> Process {
    start_over(redis.url(), title).await
}

async fn start_over(url: String, title: &str) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title.to_owned()),
        ("PHALANX__CLUSTER__INTEROP", "true".to_owned()),
        ("PHALANX__CLUSTER__INTEROP_TOKEN", TOKEN.to_owned()),
    ];
    Process::start("tour", &environment.each_ref().map(|(name, value)| (*name, value.as_str()))).await
}

/// A message as an Actionhero node writes it.
async fn write(redis: &Redis, kind: &str, fields: Value) {
    let mut message = json!({ "messageType": kind, "serverId": "nodeA", "serverToken": TOKEN });
    message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    redis.publish(CHANNEL, &message.to_string()).await;
}

async fn call(redis: &Redis, name: &str, method: &str, connection: &str, args: Value) {
    let fields = json!({ "messageId": name, "method": method, "connectionId": connection, "args": args });
    write(redis, "do", fields).await;
}

/// The messages of this type that our nodes published so far.
fn written(watch: &Watch, kind: &str) -> Vec<Value> {
    let all = watch.on(CHANNEL).into_iter().filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    all.filter(|message| message["phalanx"] == "tour" && message["messageType"] == kind).collect()
}

/// Waits for the reply to a call.
async fn reply(watch: &Watch, name: &str) -> Value {
    let find = || written(watch, "doResponse").into_iter().find(|reply| reply["messageId"] == name);
    until("the call is answered", SOON, async || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn messages_of_either_side_reach_both_in_one_order() {
    let (redis, watch) = redis().await;
    let (one, other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
    let mut here = Socket::join(one.addr, "defaultRoom").await;
    let mut there = Socket::join(other.addr, "defaultRoom").await;
    let chat = |message: Value, room: &str| json!({ "message": message, "sentAt": 5, "connection": { "id": "85db", "room": room } });
    write(&redis, "chat", chat(json!("elsewhere"), "otherRoom")).await;
    for number in 0..20 {
        write(&redis, "chat", chat(json!({ "number": number }), "defaultRoom")).await;
        here.send(&json!({ "event": "say", "room": "defaultRoom", "message": number }).to_string()).await;
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        first.push(here.next_in("user").await);
        second.push(there.next_in("user").await);
    }
    assert_eq!(first, second, "both nodes receive one order");
    let theirs: Vec<&Value> = first.iter().filter(|message| message["from"] == "85db").collect();
    let expected =
        json!({ "message": { "number": 0 }, "room": "defaultRoom", "from": "85db", "context": "user", "sentAt": 5 });
    assert_eq!((theirs.len(), theirs[0]), (20, &expected));
    until("all messages are published", SOON, async || written(&watch, "chat").len() == 20).await;
    let ours = &written(&watch, "chat")[0];
    assert_eq!((&ours["message"], &ours["serverToken"]), (&json!(0), &json!(TOKEN)));
    assert_eq!(ours["connection"], json!({ "id": here.id(), "room": "defaultRoom" }));
    assert_eq!((&ours["serverId"], ours["sentAt"].is_u64()), (&get(one.addr, "/api/status").await.json()["id"], true));
    let order = |frames: &[Value]| frames.iter().map(|frame| frame["message"].clone()).collect::<Vec<_>>();
    let on_channel: Vec<Value> = watch.on(CHANNEL).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(order(&on_channel[1..]), order(&first), "their members receive the same order");
}

#[tokio::test]
async fn their_members_receive_no_message_twice_when_the_connection_that_publishes_breaks() {
    let (redis, watch) = redis().await;
    let proxy = Proxy::before(redis.addr()).await;
    let one = start_over(redis.url_through(proxy.addr()), "one").await;
    let mut socket = Socket::join(one.addr, "defaultRoom").await;
    proxy.delay_replies_to("PUBLISH", Duration::from_millis(50));
    let mut say = async |number: usize| {
        let message = json!({ "event": "say", "room": "defaultRoom", "message": number });
        socket.send(&message.to_string()).await;
    };
    for round in 0..3 {
        let before = written(&watch, "chat").len();
        for number in 0..10 {
            say(round * 10 + number).await;
        }
        let published = || written(&watch, "chat").len() > before;
        until("some are published and not confirmed", SOON, async || published()).await;
        proxy.cut();
        let clients = async || redis.command("CLIENT LIST").await.matches("id=").count();
        until("the node is cut off", SOON, async || clients().await == 2).await; // the watch, and this client
        proxy.restore();
    }
    say(100).await;
    until("the last is published", SOON, async || written(&watch, "chat").iter().any(|chat| chat["message"] == 100))
        .await;
    let numbers: Vec<u64> = written(&watch, "chat").iter().filter_map(|chat| chat["message"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "each once and in order: {numbers:?}");
}

#[tokio::test]
async fn a_say_passes_on_a_full_redis_and_after_all_scripts_were_removed() {
    let (redis, watch) = redis().await;
    let one = start(&redis, "one").await;
    let mut socket = Socket::join(one.addr, "defaultRoom").await;
    let mut say = async |number: usize| {
        let message = json!({ "event": "say", "room": "defaultRoom", "message": number, "messageId": number });
        socket.request_by_id(&message).await["error"].is_null()
    };
    assert!(say(1).await);
    redis.command("CONFIG SET maxmemory 1").await;
    assert!(redis.command("SET any value").await.starts_with("-OOM"));
    assert!(say(2).await);
    redis.command("CONFIG SET maxmemory 0").await;
    redis.command("SCRIPT FLUSH").await;
    until("the script is loaded again", SOON, async || say(3).await).await;
    until("all are published", SOON, async || written(&watch, "chat").len() == 3).await;
}

#[tokio::test]
async fn their_calls_are_answered_by_the_owner_alone() {
    let (redis, watch) = redis().await;
    let (one, _other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
    let mut socket = Socket::connect(one.addr).await;
    let id = socket.id();
    let responder = "api.connections.applyResponder";

    call(&redis, "read", responder, &id, json!([id, null, null])).await;
    let read = reply(&watch, "read").await["response"].take();
    assert_eq!((&read["id"], &read["type"], &read["rooms"]), (&json!(id), &json!("websocket"), &json!([])));
    for (field, value) in
        [("canChat", json!(true)), ("params", json!({})), ("session", json!({})), ("messageId", json!(0))]
    {
        assert_eq!(read[field], value, "{field}");
    }
    call(&redis, "set", responder, &id, json!([id, "set", ["level", 3]])).await;
    assert_eq!(reply(&watch, "set").await["response"]["level"], 3);
    call(&redis, "send", responder, &id, json!([id, "sendMessage", { "from": "nodeA" }])).await;
    assert_eq!(socket.read().await, json!({ "from": "nodeA", "context": "response" }));
    call(&redis, "remote", responder, &id, json!([id, "authorize", [{ "level": 2 }]])).await;
    assert_eq!(reply(&watch, "remote").await["response"]["level"], 2.0);
    call(&redis, "add", "api.chatRoom.addMember", &id, json!([id, "otherRoom"])).await;
    assert_eq!(reply(&watch, "add").await["response"], true);
    assert_eq!(members(one.addr, "otherRoom").await, 1);
    call(&redis, "remove", "api.chatRoom.removeMember", &id, json!([id, "otherRoom"])).await;
    assert_eq!(reply(&watch, "remove").await["response"], true);
    assert_eq!(members(one.addr, "otherRoom").await, 0);

    // Actionhero's replies have no errors: a refused call is not answered.
    for (name, method, args) in [
        ("unknown", responder, json!([id, "explode", []])),
        ("refused", responder, json!([id, "authorize", [{ "level": "high" }]])),
        ("outside", "api.chatRoom.removeMember", json!([id, "otherRoom"])),
        ("malformed", responder, json!([id, "set", [1, 2, 3]])),
        ("theirs", "api.cache.load", json!([id])),
    ] {
        call(&redis, name, method, &id, args).await;
    }
    call(&redis, "foreign", responder, "85db", json!(["85db", null, null])).await;
    // Every node logs, and every node replies.
    write(&redis, "do", json!({ "messageId": "log", "method": "api.log", "args": ["hello\nworld", "crit"] })).await;
    until("both have logged", SOON, async || {
        written(&watch, "doResponse").iter().filter(|reply| reply["messageId"] == "log").count() == 2
    })
    .await;
    let answered: Vec<Value> = written(&watch, "doResponse").iter().map(|reply| reply["messageId"].clone()).collect();
    assert_eq!(answered, ["read", "set", "send", "remote", "add", "remove", "log", "log"]);
    call(&redis, "destroy", responder, &id, json!([id, "destroy", []])).await;
    assert_eq!(socket.closed().await, 4500);
}

#[tokio::test]
async fn rubbish_on_their_channel_is_dropped_and_counted() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let mut socket = Socket::join(node.addr, "defaultRoom").await;
    let forged = json!({ "messageType": "chat", "serverToken": "wrong", "message": "forged",
        "connection": { "id": "a", "room": "defaultRoom" } });
    let unaddressed = json!({ "messageType": "do", "serverToken": TOKEN, "method": "api.connections.applyResponder" });
    let messages = [
        "null",
        "[]",
        "{}",
        "7",
        "no json",
        "{\"messageType\":",
        &"x".repeat(60_000),
        &forged.to_string(),
        &unaddressed.to_string(),
    ];
    for message in messages {
        redis.publish(CHANNEL, message).await;
    }
    until("they are counted", SOON, async || {
        let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
        let dropped = metrics.lines().filter(|line| line.starts_with("phalanx_bus_dropped_total"));
        dropped.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum::<usize>() == messages.len()
    })
    .await;
    socket.send(r#"{"event":"say","room":"defaultRoom","message":"still here"}"#).await;
    assert_eq!(socket.next_in("user").await["message"], "still here", "no other message was delivered");
    assert_eq!(written(&watch, "doResponse"), Vec::<Value>::new(), "no call was answered");
}

/// Fake connections of an Actionhero node: each is in rooms, and replies with the arguments of the call.
#[derive(Default)]
struct Theirs {
    rooms: Mutex<BTreeMap<String, Value>>,
    kind: &'static str,
}

impl Theirs {
    fn new(connections: &[(&str, Value)]) -> Self {
        let rooms = connections.iter().map(|(id, rooms)| ((*id).to_owned(), rooms.clone())).collect();
        Self { rooms: Mutex::new(rooms), kind: "websocket" }
    }

    /// Replies until it is dropped. `meanwhile` is called with the connection's id before its list of rooms is set.
    async fn serve(&self, redis: &Redis, watch: &Watch, mut meanwhile: impl AsyncFnMut(&str)) {
        let mut seen = 0;
        loop {
            for call in written(watch, "do").into_iter().skip(seen) {
                seen += 1;
                let (id, args) = (call["connectionId"].as_str().unwrap(), &call["args"]);
                if !self.rooms.lock().unwrap().contains_key(id) {
                    continue;
                }
                if args[1] == "set" && args[2][0] == "rooms" {
                    meanwhile(id).await;
                    self.put(id, args[2][1].clone());
                }
                let rooms = self.rooms.lock().unwrap()[id].clone();
                let response = json!({ "id": id, "type": self.kind, "rooms": rooms, "args": args, "level": 4 });
                write(redis, "doResponse", json!({ "messageId": call["messageId"], "response": response })).await;
            }
            tokio::task::yield_now().await;
        }
    }

    fn put(&self, id: &str, rooms: Value) {
        self.rooms.lock().unwrap().insert(id.to_owned(), rooms);
    }
}

/// Adds a connection of theirs to the list of a room.
async fn list(redis: &Redis, room: &str, id: &str) {
    let member = r#"{\"id\":\"x\",\"joinedAt\":5,\"host\":\"nodeA\"}"#;
    redis.command(&format!("HSET actionhero:chatRoom:members:{room} {id} \"{member}\"")).await;
}

/// The arguments of our nodes' calls.
fn calls(watch: &Watch) -> Vec<Value> {
    written(watch, "do").iter().map(|call| call["args"].clone()).collect()
}

#[tokio::test]
async fn their_connections_get_only_calls_that_they_survive() {
    let (redis, watch) = redis().await;
    let (one, other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
    let theirs = Theirs::new(&[("85db", json!([]))]);
    let calling = async {
        for addr in [one.addr, other.addr] {
            let call = |method: &'static str, args: Value| async move {
                let answered = apply(addr, "85db", method, args).await;
                if answered.status == 200 { answered.json()["result"].take() } else { answered.error_code().into() }
            };
            assert_eq!(call("", json!(null)).await["args"], json!(["85db", null, null]));
            assert_eq!(call("get", json!(["level"])).await, 4);
            assert_eq!(call("set", json!(["level", 5])).await, true);
            assert_eq!(call("sendMessage", json!("hello")).await, true);
            assert_eq!(call("sendFile", json!("simple.html")).await, true);
            assert_eq!(call("destroy", json!(null)).await, true);
            for field in ["rooms", "rawConnection", "__proto__", "sendMessage"] {
                assert_eq!(call("set", json!([field, null])).await, "invalid_input", "{field}");
            }
            assert_eq!(call("roomAdd", json!("defaultRoom")).await, "unknown_method");
            assert_eq!(call("roomLeave", json!("nowhere")).await, "not_found");
            assert_eq!(call("roomLeave", json!("defaultRoom")).await, "not_found", "it is not a member");
            assert_eq!(call("authorize", json!({ "level": 1 })).await, "not_found");
            list(&redis, "defaultRoom", "85db").await;
            list(&redis, "otherRoom", "85db").await;
            theirs.put("85db", json!(["defaultRoom", "otherRoom"]));
            assert_eq!(call("roomLeave", json!("defaultRoom")).await, true);
            assert_eq!((members(addr, "defaultRoom").await, members(addr, "otherRoom").await), (0, 1));
            theirs.put("85db", json!([]));
        }
    };
    tokio::select! {
        () = calling => {}
        () = theirs.serve(&redis, &watch, async |_| ()) => {}
    }
    let read = json!(["85db", null, null]);
    let expected = [
        read.clone(),
        read.clone(),
        json!(["85db", "set", ["level", 5]]),
        read.clone(),
        json!(["85db", "sendMessage", { "message": "hello", "context": "response" }]),
        read.clone(),
        json!(["85db", "sendFile", "simple.html"]),
        read.clone(),
        json!(["85db", "destroy", []]),
        read.clone(),
        json!(["85db", "set", ["rooms", ["otherRoom"]]]),
        read,
    ];
    let mut first = calls(&watch);
    let second = first.split_off(expected.len());
    assert_eq!((first, second), (expected.to_vec(), expected.to_vec()), "and nothing more");
    // An Actionhero node does not reply for a connection that it does not have.
    let limited = json!({ "method": "details", "timeoutMs": 200 }).to_string();
    let late = crate::client::post_json(one.addr, "/api/connections/unknown/apply", &limited).await;
    assert_eq!(late.error_code(), "late");
}

#[tokio::test]
async fn only_their_websockets_are_sent_anything() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs { kind: "web", ..Theirs::new(&[("85db", json!([]))]) };
    let calling = async {
        for (method, args) in [("sendMessage", json!("hello")), ("sendFile", json!("simple.html"))] {
            assert_eq!(apply(node.addr, "85db", method, args).await.error_code(), "forbidden", "{method}");
        }
    };
    tokio::select! {
        () = calling => {}
        () = theirs.serve(&redis, &watch, async |_| ()) => {}
    }
    assert_eq!(calls(&watch), [json!(["85db", null, null]), json!(["85db", null, null])]);
}

#[tokio::test]
async fn a_room_that_a_connection_left_meanwhile_is_not_restored_to_it() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs::new(&[("85db", json!(["defaultRoom", "otherRoom"]))]);
    list(&redis, "defaultRoom", "85db").await;
    list(&redis, "otherRoom", "85db").await;
    let leaves = async |_: &str| drop(redis.command("HDEL actionhero:chatRoom:members:otherRoom 85db").await);
    tokio::select! {
        left = apply(node.addr, "85db", "roomLeave", json!("defaultRoom")) => assert_eq!(left.json()["result"], true),
        () = theirs.serve(&redis, &watch, leaves) => {}
    }
    assert_eq!(theirs.rooms.lock().unwrap()["85db"], json!([]));
    assert_eq!(members(node.addr, "defaultRoom").await, 0);
}

#[tokio::test]
async fn a_connection_that_rejoins_while_it_is_removed_remains_a_member() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs::new(&[("85db", json!(["defaultRoom"]))]);
    list(&redis, "defaultRoom", "85db").await;
    let joins = async |_: &str| {
        let again = r#"{\"id\":\"x\",\"joinedAt\":6}"#;
        redis.command(&format!("HSET actionhero:chatRoom:members:defaultRoom 85db \"{again}\"")).await;
    };
    tokio::select! {
        left = apply(node.addr, "85db", "roomLeave", json!("defaultRoom")) => assert_eq!(left.json()["result"], true),
        () = theirs.serve(&redis, &watch, joins) => {}
    }
    assert_eq!(members(node.addr, "defaultRoom").await, 1);
}

async fn in_process(redis: &Redis, change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = config("in-process");
    config.cluster.interop = true;
    config.cluster.interop_token = TOKEN.to_owned();
    change(&mut config);
    App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
}

#[tokio::test]
async fn a_room_is_destroyed_only_after_their_members_left_it() {
    let (redis, watch) = redis().await;
    let node = in_process(&redis, |_| ()).await;
    let rooms = node.node().rooms();
    rooms.create("club").await.unwrap();
    let addr: SocketAddr = node.addr();
    let mut socket = Socket::join(addr, "club").await;
    list(&redis, "club", "85db").await;
    let listed = rooms.status("club").await.unwrap().members;
    assert_eq!(listed.count, 2, "{listed:?}");
    let theirs = Theirs::new(&[("85db", json!(["club"]))]);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.serve(&redis, &watch, async |_| ()) => {}
    }
    assert_eq!(socket.next_in("user").await["message"], "this room has been deleted");
    let first: Value = serde_json::from_str(&watch.on(CHANNEL)[0]).unwrap();
    assert_eq!(first["message"], "this room has been deleted", "the message is sent first");
    let read = json!(["85db", null, null]);
    assert_eq!(calls(&watch), [read.clone(), json!(["85db", "set", ["rooms", []]]), read], "then they are removed");
    assert!(!rooms.exists("club").await.unwrap());
    assert_eq!(rooms.destroy("club").await.unwrap_err().code(), "not_found");

    // A member of a dead node delays the destroy no longer than a live one may.
    rooms.create("club").await.unwrap();
    list(&redis, "club", "ghost").await;
    rooms.destroy("club").await.unwrap();
    assert!(!rooms.exists("club").await.unwrap());
    node.stop().await;
}

#[tokio::test]
async fn a_room_is_destroyed_however_many_members_they_have_in_it() {
    let (redis, watch) = redis().await;
    let node = in_process(&redis, |config| config.cluster.max_calls = 8).await;
    let rooms = node.node().rooms();
    rooms.create("club").await.unwrap();
    let ids: Vec<String> = (0..30).map(|number| format!("id {number} \u{fc}")).collect();
    for id in &ids {
        list(&redis, "club", &format!("\"{id}\"")).await;
    }
    let connections: Vec<(&str, Value)> = ids.iter().map(|id| (id.as_str(), json!(["club"]))).collect();
    let theirs = Theirs::new(&connections);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.serve(&redis, &watch, async |_| ()) => {}
    }
    assert!(theirs.rooms.lock().unwrap().values().all(|rooms| *rooms == json!([])));
    node.stop().await;
}

#[tokio::test]
async fn a_room_is_not_destroyed_while_their_member_cannot_be_called() {
    let (redis, watch) = redis().await;
    let node = in_process(&redis, |config| config.cluster.max_calls = 1).await;
    let (rooms, connections) = (node.node().rooms(), node.node().connections());
    rooms.create("club").await.unwrap();
    list(&redis, "club", "85db").await;
    let theirs = Theirs::new(&[("85db", json!(["club"]))]);
    let unknown = ConnectionId::parse("unknown").unwrap();
    let refused = tokio::select! {
        answer = connections.apply_within(&unknown, "details", json!(null), Some(SOON)) => panic!("{answer:?}"),
        refused = async {
            until("the only permitted call is pending", SOON, async || !calls(&watch).is_empty()).await;
            rooms.destroy("club").await
        } => refused,
    };
    assert_eq!(refused.unwrap_err().code(), "unavailable");
    assert_eq!(rooms.status("club").await.unwrap().members.count, 1);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.serve(&redis, &watch, async |_| ()) => {}
    }
    node.stop().await;
}

#[tokio::test]
async fn the_interop_token_is_required_and_differs_from_our_own() {
    for (token, reason) in [
        ("", "cluster.interop needs"),
        ("change-me", "must differ from general.server_token"),
        ("the previous one", "must differ from general.server_token and general.previous_server_token"),
    ] {
        let environment = [
            ("PHALANX__CLUSTER__INTEROP", "true"),
            ("PHALANX__CLUSTER__INTEROP_TOKEN", token),
            ("PHALANX__GENERAL__PREVIOUS_SERVER_TOKEN", "the previous one"),
        ];
        let refused = phalanx_testkit::run("tour", &[], &environment).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

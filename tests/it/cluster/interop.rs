//! What a node says on the channel of Actionhero nodes, and what it makes of what they say. They are played by hand here;
//! `just interop` runs a real one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use phalanx::Running;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{INTEROP, Process, Redis, Watch};
use serde_json::{Value, json};

use super::{SOON, apply, config, members, until};
use crate::client::{Socket, get};
use phalanx_core::ConnectionId;

const CHANNEL: &str = "actionhero";

const TOKEN: &str = "lab-token";

/// A Redis that knows both kinds of nodes, and somebody who listens.
async fn redis() -> (Redis, Watch) {
    let redis = Redis::start().await;
    redis.ask(&format!("ACL SETUSER phalanx {INTEROP}")).await;
    let watch = redis.watch().await;
    (redis, watch)
}

async fn start(redis: &Redis, title: &str) -> Process {
    let environment = [
        ("REDIS_URL", redis.url()),
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

/// What our nodes wrote so far.
fn written(watch: &Watch, kind: &str) -> Vec<Value> {
    let all = watch.on(CHANNEL).into_iter().filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    all.filter(|message| message["phalanx"] == "tour" && message["messageType"] == kind).collect()
}

/// The answer to a call, when it comes.
async fn answer(watch: &Watch, name: &str) -> Value {
    let find = || written(watch, "doResponse").into_iter().find(|answer| answer["messageId"] == name);
    until("it is answered", SOON, async || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn what_is_said_on_either_side_is_heard_on_both_in_one_order() {
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
    assert_eq!(first, second, "one order for everybody");
    let theirs: Vec<&Value> = first.iter().filter(|said| said["from"] == "85db").collect();
    let expected =
        json!({ "message": { "number": 0 }, "room": "defaultRoom", "from": "85db", "context": "user", "sentAt": 5 });
    assert_eq!((theirs.len(), theirs[0]), (20, &expected));
    until("all is written", SOON, async || written(&watch, "chat").len() == 20).await;
    let ours = &written(&watch, "chat")[0];
    assert_eq!((&ours["message"], &ours["serverToken"]), (&json!(0), &json!(TOKEN)));
    assert_eq!(ours["connection"], json!({ "id": here.id(), "room": "defaultRoom" }));
    assert_eq!((&ours["serverId"], ours["sentAt"].is_u64()), (&get(one.addr, "/api/status").await.json()["id"], true));
    let order = |said: &[Value]| said.iter().map(|said| said["message"].clone()).collect::<Vec<_>>();
    let on_channel: Vec<Value> = watch.on(CHANNEL).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(order(&on_channel[1..]), order(&first), "their members hear the same order");
}

#[tokio::test]
async fn calls_of_theirs_are_answered_by_the_owner_alone() {
    let (redis, watch) = redis().await;
    let (one, _other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
    let mut socket = Socket::connect(one.addr).await;
    let id = socket.id();
    let responder = "api.connections.applyResponder";

    call(&redis, "read", responder, &id, json!([id, null, null])).await;
    let read = answer(&watch, "read").await["response"].take();
    assert_eq!((&read["id"], &read["type"], &read["rooms"]), (&json!(id), &json!("websocket"), &json!([])));
    for (field, value) in
        [("canChat", json!(true)), ("params", json!({})), ("session", json!({})), ("messageId", json!(0))]
    {
        assert_eq!(read[field], value, "{field}");
    }
    call(&redis, "set", responder, &id, json!([id, "set", ["level", 3]])).await;
    assert_eq!(answer(&watch, "set").await["response"]["level"], 3);
    call(&redis, "send", responder, &id, json!([id, "sendMessage", { "from": "nodeA" }])).await;
    assert_eq!(socket.read().await, json!({ "from": "nodeA", "context": "response" }));
    call(&redis, "remote", responder, &id, json!([id, "authorize", [{ "level": 2 }]])).await;
    assert_eq!(answer(&watch, "remote").await["response"]["level"], 2.0);
    call(&redis, "add", "api.chatRoom.addMember", &id, json!([id, "otherRoom"])).await;
    assert_eq!(answer(&watch, "add").await["response"], true);
    assert_eq!(members(one.addr, "otherRoom").await, 1);
    call(&redis, "remove", "api.chatRoom.removeMember", &id, json!([id, "otherRoom"])).await;
    assert_eq!(answer(&watch, "remove").await["response"], true);
    assert_eq!(members(one.addr, "otherRoom").await, 0);

    // They know no errors: what is refused is not answered.
    for (name, method, args) in [
        ("unknown", responder, json!([id, "explode", []])),
        ("refused", responder, json!([id, "authorize", [{ "level": "high" }]])),
        ("outside", "api.chatRoom.removeMember", json!([id, "otherRoom"])),
        ("nobody's", responder, json!([id, "set", [1, 2, 3]])),
        ("theirs", "api.cache.load", json!([id])),
    ] {
        call(&redis, name, method, &id, args).await;
    }
    call(&redis, "foreign", responder, "85db", json!(["85db", null, null])).await;
    // Every node logs, and every node says that it has.
    write(&redis, "do", json!({ "messageId": "log", "method": "api.log", "args": ["hello\nworld", "crit"] })).await;
    until("both have logged", SOON, async || {
        written(&watch, "doResponse").iter().filter(|answer| answer["messageId"] == "log").count() == 2
    })
    .await;
    let answered: Vec<Value> = written(&watch, "doResponse").iter().map(|answer| answer["messageId"].clone()).collect();
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
    assert_eq!(socket.next_in("user").await["message"], "still here", "nothing else was heard");
    assert_eq!(written(&watch, "doResponse"), Vec::<Value>::new(), "nobody was answered");
}

/// Connections of theirs, played: each is in rooms, and answers calls with what it was asked.
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

    /// Answers for ever. `meanwhile` is called before each list of rooms is written, with its connection.
    async fn answer(&self, redis: &Redis, watch: &Watch, mut meanwhile: impl AsyncFnMut(&str)) {
        let mut seen = 0;
        loop {
            for call in written(watch, "do").into_iter().skip(seen) {
                seen += 1;
                let (id, asked) = (call["connectionId"].as_str().unwrap(), &call["args"]);
                if !self.rooms.lock().unwrap().contains_key(id) {
                    continue;
                }
                if asked[1] == "set" && asked[2][0] == "rooms" {
                    meanwhile(id).await;
                    self.put(id, asked[2][1].clone());
                }
                let rooms = self.rooms.lock().unwrap()[id].clone();
                let response = json!({ "id": id, "type": self.kind, "rooms": rooms, "asked": asked, "level": 4 });
                write(redis, "doResponse", json!({ "messageId": call["messageId"], "response": response })).await;
            }
            tokio::task::yield_now().await;
        }
    }

    fn put(&self, id: &str, rooms: Value) {
        self.rooms.lock().unwrap().insert(id.to_owned(), rooms);
    }
}

/// Lists a connection of theirs in a room.
async fn list(redis: &Redis, room: &str, id: &str) {
    let member = r#"{\"id\":\"x\",\"joinedAt\":5,\"host\":\"nodeA\"}"#;
    redis.ask(&format!("HSET actionhero:chatRoom:members:{room} {id} \"{member}\"")).await;
}

/// What our nodes asked for.
fn asked(watch: &Watch) -> Vec<Value> {
    written(watch, "do").iter().map(|call| call["args"].clone()).collect()
}

#[tokio::test]
async fn their_connections_are_called_by_what_they_survive_and_nothing_else() {
    let (redis, watch) = redis().await;
    let (one, other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
    let theirs = Theirs::new(&[("85db", json!([]))]);
    let asking = async {
        for addr in [one.addr, other.addr] {
            let ask = |method: &'static str, args: Value| async move {
                let answered = apply(addr, "85db", method, args).await;
                if answered.status == 200 { answered.json()["result"].take() } else { answered.error_code().into() }
            };
            assert_eq!(ask("", json!(null)).await["asked"], json!(["85db", null, null]));
            assert_eq!(ask("get", json!(["level"])).await, 4);
            assert_eq!(ask("set", json!(["level", 5])).await, true);
            assert_eq!(ask("sendMessage", json!("hello")).await, true);
            assert_eq!(ask("sendFile", json!("simple.html")).await, true);
            assert_eq!(ask("destroy", json!(null)).await, true);
            for field in ["rooms", "rawConnection", "__proto__", "sendMessage"] {
                assert_eq!(ask("set", json!([field, null])).await, "invalid_input", "{field}");
            }
            assert_eq!(ask("roomAdd", json!("defaultRoom")).await, "unknown_method");
            assert_eq!(ask("roomLeave", json!("nowhere")).await, "not_found");
            assert_eq!(ask("roomLeave", json!("defaultRoom")).await, "not_found", "it is no member");
            assert_eq!(ask("authorize", json!({ "level": 1 })).await, "not_found");
            list(&redis, "defaultRoom", "85db").await;
            list(&redis, "otherRoom", "85db").await;
            theirs.put("85db", json!(["defaultRoom", "otherRoom"]));
            assert_eq!(ask("roomLeave", json!("defaultRoom")).await, true);
            assert_eq!((members(addr, "defaultRoom").await, members(addr, "otherRoom").await), (0, 1));
            theirs.put("85db", json!([]));
        }
    };
    tokio::select! {
        () = asking => {}
        () = theirs.answer(&redis, &watch, async |_| ()) => {}
    }
    let look = json!(["85db", null, null]);
    let expected = [
        look.clone(),
        look.clone(),
        json!(["85db", "set", ["level", 5]]),
        look.clone(),
        json!(["85db", "sendMessage", { "message": "hello", "context": "response" }]),
        look.clone(),
        json!(["85db", "sendFile", "simple.html"]),
        look.clone(),
        json!(["85db", "destroy", []]),
        look.clone(),
        json!(["85db", "set", ["rooms", ["otherRoom"]]]),
        look,
    ];
    let mut asked = asked(&watch);
    let second = asked.split_off(expected.len());
    assert_eq!((asked, second), (expected.to_vec(), expected.to_vec()), "and nothing more");
    // Nobody says that a connection is not theirs.
    let limited = json!({ "method": "details", "timeoutMs": 200 }).to_string();
    let late = crate::client::post_json(one.addr, "/api/connections/nobody/apply", &limited).await;
    assert_eq!(late.error_code(), "late");
}

#[tokio::test]
async fn only_websockets_of_theirs_are_sent_anything() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs { kind: "web", ..Theirs::new(&[("85db", json!([]))]) };
    let asking = async {
        for (method, args) in [("sendMessage", json!("hello")), ("sendFile", json!("simple.html"))] {
            assert_eq!(apply(node.addr, "85db", method, args).await.error_code(), "forbidden", "{method}");
        }
    };
    tokio::select! {
        () = asking => {}
        () = theirs.answer(&redis, &watch, async |_| ()) => {}
    }
    assert_eq!(asked(&watch), [json!(["85db", null, null]), json!(["85db", null, null])]);
}

#[tokio::test]
async fn a_room_that_a_connection_left_meanwhile_is_not_given_back_to_it() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs::new(&[("85db", json!(["defaultRoom", "otherRoom"]))]);
    list(&redis, "defaultRoom", "85db").await;
    list(&redis, "otherRoom", "85db").await;
    let leaves = async |_: &str| drop(redis.ask("HDEL actionhero:chatRoom:members:otherRoom 85db").await);
    tokio::select! {
        left = apply(node.addr, "85db", "roomLeave", json!("defaultRoom")) => assert_eq!(left.json()["result"], true),
        () = theirs.answer(&redis, &watch, leaves) => {}
    }
    assert_eq!(theirs.rooms.lock().unwrap()["85db"], json!([]));
    assert_eq!(members(node.addr, "defaultRoom").await, 0);
}

#[tokio::test]
async fn who_joins_again_while_it_is_taken_out_stays_in() {
    let (redis, watch) = redis().await;
    let node = start(&redis, "one").await;
    let theirs = Theirs::new(&[("85db", json!(["defaultRoom"]))]);
    list(&redis, "defaultRoom", "85db").await;
    let joins = async |_: &str| {
        let again = r#"{\"id\":\"x\",\"joinedAt\":6}"#;
        redis.ask(&format!("HSET actionhero:chatRoom:members:defaultRoom 85db \"{again}\"")).await;
    };
    tokio::select! {
        left = apply(node.addr, "85db", "roomLeave", json!("defaultRoom")) => assert_eq!(left.json()["result"], true),
        () = theirs.answer(&redis, &watch, joins) => {}
    }
    assert_eq!(members(node.addr, "defaultRoom").await, 1);
}

async fn inside(redis: &Redis, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config("inside");
    config.cluster.interop = true;
    config.cluster.interop_token = TOKEN.to_owned();
    change(&mut config);
    App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap()
}

#[tokio::test]
async fn a_room_goes_only_after_their_members_of_it() {
    let (redis, watch) = redis().await;
    let node = inside(&redis, |_| ()).await;
    let rooms = node.node().rooms();
    rooms.add("club").await.unwrap();
    let addr: SocketAddr = node.addr();
    let mut socket = Socket::join(addr, "club").await;
    list(&redis, "club", "85db").await;
    let listed = rooms.status("club").await.unwrap().members;
    assert_eq!(listed.count, 2, "{listed:?}");
    let theirs = Theirs::new(&[("85db", json!(["club"]))]);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.answer(&redis, &watch, async |_| ()) => {}
    }
    assert_eq!(socket.next_in("user").await["message"], "this room has been deleted");
    let first: Value = serde_json::from_str(&watch.on(CHANNEL)[0]).unwrap();
    assert_eq!(first["message"], "this room has been deleted", "told first");
    let look = json!(["85db", null, null]);
    assert_eq!(asked(&watch), [look.clone(), json!(["85db", "set", ["rooms", []]]), look], "then taken out");
    assert!(!rooms.exists("club").await.unwrap());
    assert_eq!(rooms.destroy("club").await.unwrap_err().code(), "not_found");

    // A member of a node that died keeps nobody from it for longer than it would take a living one.
    rooms.add("club").await.unwrap();
    list(&redis, "club", "ghost").await;
    rooms.destroy("club").await.unwrap();
    assert!(!rooms.exists("club").await.unwrap());
    node.stop().await;
}

#[tokio::test]
async fn a_room_goes_however_many_members_they_have_in_it() {
    let (redis, watch) = redis().await;
    let node = inside(&redis, |config| config.cluster.max_calls = 8).await;
    let rooms = node.node().rooms();
    rooms.add("club").await.unwrap();
    let ids: Vec<String> = (0..30).map(|number| format!("id {number} \u{fc}")).collect();
    for id in &ids {
        list(&redis, "club", &format!("\"{id}\"")).await;
    }
    let connections: Vec<(&str, Value)> = ids.iter().map(|id| (id.as_str(), json!(["club"]))).collect();
    let theirs = Theirs::new(&connections);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.answer(&redis, &watch, async |_| ()) => {}
    }
    assert!(theirs.rooms.lock().unwrap().values().all(|rooms| *rooms == json!([])));
    node.stop().await;
}

#[tokio::test]
async fn a_room_stays_as_long_as_a_member_of_theirs_cannot_be_asked_to_leave() {
    let (redis, watch) = redis().await;
    let node = inside(&redis, |config| config.cluster.max_calls = 1).await;
    let (rooms, connections) = (node.node().rooms(), node.node().connections());
    rooms.add("club").await.unwrap();
    list(&redis, "club", "85db").await;
    let theirs = Theirs::new(&[("85db", json!(["club"]))]);
    let nobody = ConnectionId::parse("nobody").unwrap();
    let refused = tokio::select! {
        answer = connections.apply_within(&nobody, "details", json!(null), Some(SOON)) => panic!("{answer:?}"),
        refused = async {
            until("the only call waits", SOON, async || !asked(&watch).is_empty()).await;
            rooms.destroy("club").await
        } => refused,
    };
    assert_eq!(refused.unwrap_err().code(), "unavailable");
    assert_eq!(rooms.status("club").await.unwrap().members.count, 1);
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = theirs.answer(&redis, &watch, async |_| ()) => {}
    }
    node.stop().await;
}

#[tokio::test]
async fn the_token_of_theirs_is_given_and_is_not_our_own() {
    for (token, reason) in [
        ("", "cluster.interop needs"),
        ("change-me", "must differ from general.server_token"),
        ("what it was", "must differ from general.server_token and general.previous_server_token"),
    ] {
        let environment = [
            ("PHALANX__CLUSTER__INTEROP", "true"),
            ("PHALANX__CLUSTER__INTEROP_TOKEN", token),
            ("PHALANX__GENERAL__PREVIOUS_SERVER_TOKEN", "what it was"),
        ];
        let refused = phalanx_testkit::run("tour", &[], &environment).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

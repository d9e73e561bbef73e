//! What a node says on the channel of Actionhero nodes, and what it makes of what they say. They are played by hand here;
//! `just interop` runs a real one.

use std::net::SocketAddr;

use phalanx::Running;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{INTEROP, Process, Redis, Watch};
use serde_json::{Value, json};

use super::{SOON, apply, members, until};
use crate::client::{Socket, get};

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

/// Plays the owner of a connection: answers calls with what it was asked.
async fn echo(redis: &Redis, watch: &Watch, id: &str) {
    let mut answered = 0;
    loop {
        let calls: Vec<Value> =
            written(watch, "do").into_iter().filter(|call| call["connectionId"] == id).skip(answered).collect();
        for call in calls {
            if call["method"] == "api.chatRoom.removeMember" {
                let room = call["args"][1].as_str().unwrap();
                redis.ask(&format!("HDEL actionhero:chatRoom:members:{room} {id}")).await;
            }
            let response = json!({ "id": id, "asked": call["args"], "level": 4 });
            write(redis, "doResponse", json!({ "messageId": call["messageId"], "response": response })).await;
            answered += 1;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn their_connections_are_called_by_what_they_survive_and_nothing_else() {
    let (redis, watch) = redis().await;
    let (one, other) = tokio::join!(start(&redis, "one"), start(&redis, "other"));
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
            redis.ask("HSET actionhero:chatRoom:members:defaultRoom 85db {}").await;
            assert_eq!(ask("roomLeave", json!("defaultRoom")).await, true);
            redis.ask("DEL \"phalanx:tour:dismissed:defaultRoom 85db\"").await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = echo(&redis, &watch, "85db") => {}
    }
    let mut asked: Vec<Value> = written(&watch, "do").iter().map(|call| call["args"].clone()).collect();
    let nothing = json!(null);
    let expected = [
        json!(["85db", nothing, nothing]),
        json!(["85db", nothing, nothing]),
        json!(["85db", "set", ["level", 5]]),
        json!(["85db", "sendMessage", { "message": "hello", "context": "response" }]),
        json!(["85db", "sendFile", "simple.html"]),
        json!(["85db", "destroy", []]),
        json!(["85db", "defaultRoom"]),
    ];
    let second = asked.split_off(expected.len());
    assert_eq!((asked, second), (expected.to_vec(), expected.to_vec()), "and nothing more");
    // Nobody says that a connection is not theirs.
    let limited = json!({ "method": "details", "timeoutMs": 200 }).to_string();
    let late = crate::client::post_json(one.addr, "/api/connections/nobody/apply", &limited).await;
    assert_eq!(late.error_code(), "late");
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

#[tokio::test]
async fn a_room_goes_only_after_their_members_of_it() {
    let (redis, watch) = redis().await;
    let node = inside(&redis).await;
    let rooms = node.node().rooms();
    rooms.add("club").await.unwrap();
    let addr: SocketAddr = node.addr();
    let mut socket = Socket::join(addr, "club").await;
    let theirs = r#"{\"id\":\"85db\",\"joinedAt\":5,\"host\":\"nodeA\"}"#;
    redis.ask(&format!("HSET actionhero:chatRoom:members:club 85db \"{theirs}\"")).await;
    let listed = rooms.status("club").await.unwrap().members;
    assert_eq!(listed.count, 2, "{listed:?}");
    tokio::select! {
        destroyed = rooms.destroy("club") => destroyed.unwrap(),
        () = echo(&redis, &watch, "85db") => {}
    }
    assert_eq!(socket.next_in("user").await["message"], "this room has been deleted");
    let said: Vec<Value> = watch.on(CHANNEL).iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let kinds: Vec<&str> = said.iter().map(|message| message["messageType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["chat", "do", "doResponse"], "told, then taken out, and only then is the room gone");
    assert_eq!(said[0]["message"], "this room has been deleted");
    assert_eq!(said[1]["args"], json!(["85db", "club"]));
    assert!(!rooms.exists("club").await.unwrap());
    assert_eq!(rooms.destroy("club").await.unwrap_err().code(), "not_found");

    // A member of a node that died keeps nobody from it for longer than it would take a living one.
    rooms.add("club").await.unwrap();
    redis.ask(&format!("HSET actionhero:chatRoom:members:club ghost \"{theirs}\"")).await;
    rooms.destroy("club").await.unwrap();
    assert!(!rooms.exists("club").await.unwrap());
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

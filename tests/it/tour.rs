//! The tour as a real process: every promise of its page that one node can keep.

use std::net::SocketAddr;

use phalanx_testkit::Process;
use serde_json::{Value, json};

use crate::client::{Socket, get, post_json, request};

/// Calls an action over a socket.
async fn act(socket: &mut Socket, name: &str, mut params: Value) -> Value {
    params["action"] = name.into();
    socket.request(&json!({ "event": "action", "messageId": "m", "params": params }).to_string()).await
}

/// The answer to a GET request, without the fields about server and requester.
async fn plain(addr: SocketAddr, path: &str) -> Value {
    without_metadata(get(addr, path).await.json())
}

fn without_metadata(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().unwrap();
    assert!(fields.remove("serverInformation").is_some_and(|server| server["serverName"] == "tour"));
    assert!(fields.remove("requesterInformation").is_some());
    answer
}

fn keys(answer: &Value) -> Vec<&str> {
    answer.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn actions_of_one_node_answer_as_the_tour_says() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    let status = plain(addr, "/api/status").await;
    for field in ["id", "generation", "name", "version", "uptime", "nodeStatus", "problems", "connections", "rooms"] {
        assert!(status.get(field).is_some(), "{field}: {status}");
    }
    assert_eq!((&status["taskQueueLength"], status["memoryMB"].is_number()), (&json!(0), true), "{status}");
    let random = plain(addr, "/api/randomNumber").await;
    assert_eq!(keys(&random), ["randomNumber", "stringRandomNumber"]);
    let random = plain(addr, "/api/v2/randomNumber?max=0.5").await;
    assert!(random["version"] == 2 && random["randomNumber"].as_f64().is_some_and(|number| number < 0.5), "{random}");
    assert_eq!(get(addr, "/api/v2/randomNumber?max=0").await.status, 422);
    let recursive = plain(addr, "/api/recursiveAction").await;
    assert!(recursive["local"] == true && recursive["stringRandomNumber"].is_string(), "{recursive}");
    let slept = plain(addr, "/api/sleepTest?sleepDuration=20").await;
    assert!(slept["sleepDuration"] == 20 && slept["sleepDelta"].as_u64().is_some_and(|delta| delta >= 20), "{slept}");
    let panicked = get(addr, "/api/panicTest").await;
    assert_eq!((panicked.status, panicked.error_code().as_str()), (500, "internal"));
    assert_eq!(plain(addr, "/api/httpOnly").await, json!({ "ok": true }));
    assert_eq!(plain(addr, "/api/counters/nothing").await, json!({ "value": 0 }));
    assert_eq!(plain(addr, "/api/lists/nothing").await, json!({ "values": [] }));
    let cached = plain(addr, "/api/cacheTest?key=testKey&value=testValue").await;
    let results = &cached["cacheTestResults"];
    assert_eq!(
        (&results["saveResp"], &results["sizeResp"], &results["deleteResp"]),
        (&json!(true), &json!(1), &json!(true))
    );
    assert_eq!(
        (&results["loadResp"]["key"], &results["loadResp"]["value"]),
        (&json!("cacheTest_testKey"), &json!("testValue"))
    );
    assert!(results["loadResp"]["createdAt"].is_u64());
    let nodes = plain(addr, "/api/nodes").await;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1));
    for (field, value) in [("generation", &status["generation"]), ("id", &status["id"]), ("self", &json!(true))] {
        assert_eq!(&nodes["nodes"][0][field], value, "{nodes}");
    }
    let called = plain(addr, "/api/nodes/ask").await;
    assert!(called["answers"][status["id"].as_str().unwrap()]["uptime"].is_u64(), "{called}");
    assert_eq!(called["missing"], json!([]));
    let none = json!({ "count": 0, "ids": [], "missing": [] });
    assert_eq!(plain(addr, "/api/users/ada/sockets").await, none);
}

#[tokio::test]
async fn echo_returns_its_decoded_input_from_every_source() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    let all = json!({ "text": "a", "number": 1.5, "flag": true, "list": ["x", "y"], "nested": { "a": 1, "b": "z" } });
    let query = "text=a&number=1.5&flag=on&list=x&list=y&nested[a]=1&nested[b]=z&undeclared=1";
    assert_eq!(plain(addr, &format!("/api/echo?{query}")).await, all);
    let form = ["content-type: application/x-www-form-urlencoded"];
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = request(addr, &format!("{method} /api/echo"), &form, query.as_bytes()).await;
        assert_eq!(without_metadata(answer.json()), all, "{method}");
    }
    assert_eq!(without_metadata(post_json(addr, "/api/echo", &all.to_string()).await.json()), all);
    let list = post_json(addr, "/api/echo", r#"[1,{"a":[]},null]"#).await;
    assert_eq!(without_metadata(list.json()), json!({ "payload": [1, { "a": [] }, null] }));
    assert_eq!(plain(addr, "/api/echo/from%20path?text=query").await, json!({ "text": "from path" }));
    let mut socket = Socket::connect(addr).await;
    let mut echoed = act(&mut socket, "echo", all.clone()).await;
    let fields = echoed.as_object_mut().unwrap();
    assert_eq!((fields.remove("context"), fields.remove("messageId")), (Some("response".into()), Some("m".into())));
    assert_eq!(echoed, all);
}

#[tokio::test]
async fn errors_are_the_same_on_both_transports() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    let mut socket = Socket::connect(addr).await;
    for (action, path, params, code) in [
        ("validationTest", "/api/validationTest?number=99", json!({ "number": 99 }), "invalid_input"),
        (
            "validationTest",
            "/api/validationTest?string=a&number=0",
            json!({ "string": "a", "number": 0 }),
            "invalid_input",
        ),
        ("cacheTest", "/api/cacheTest?key=a", json!({ "key": "a" }), "invalid_input"),
        ("randomNumber", "/api/randomNumber?apiVersion=9", json!({ "apiVersion": 9 }), "not_found"),
        ("panicTest", "/api/panicTest", json!({}), "internal"),
        ("roomStatus", "/api/rooms/nowhere", json!({ "room": "nowhere" }), "not_found"),
    ] {
        let over_http = get(addr, path).await.json();
        let over_socket = act(&mut socket, action, params).await;
        assert_eq!(over_http["error"]["code"], code, "{over_http}");
        assert_eq!(over_http["error"], over_socket["error"], "{action}");
    }
    let note = act(&mut socket, "privateNote", json!({ "note": "hush" })).await;
    assert_eq!(note["note"], "hush");
    assert_eq!(get(addr, "/api/privateNote?note=hush").await.error_code(), "not_found");
    assert_eq!(act(&mut socket, "httpOnly", json!({})).await["error"]["code"], "forbidden");
}

#[tokio::test]
async fn an_upload_is_received_whole() {
    let node = Process::start("tour", &[]).await;
    let body = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"abc.txt\"\r\n\
        content-type: text/plain\r\n\r\nabc\r\n--b--\r\n";
    let multipart = ["content-type: multipart/form-data; boundary=b"];
    let answer = request(node.addr, "POST /api/upload", &multipart, body.as_bytes()).await.json();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let expected = json!({ "name": "abc.txt", "size": 3, "contentType": "text/plain", "sha256": sha256 });
    assert_eq!(without_metadata(answer), expected);
}

#[tokio::test]
async fn rooms_are_created_published_to_and_left() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    let created = without_metadata(post_json(addr, "/api/rooms", r#"{"name":"club"}"#).await.json());
    assert_eq!(created, json!({ "name": "club", "didCreate": true }));
    let again = without_metadata(post_json(addr, "/api/rooms", r#"{"name":"club"}"#).await.json());
    assert_eq!(again["didCreate"], false);
    let mut socket = Socket::join(addr, "club").await;
    let status = plain(addr, "/api/rooms/club").await;
    assert_eq!((&status["room"], &status["membersCount"]), (&json!("club"), &json!(1)));
    let member = &status["members"][socket.id()];
    assert!(member["id"] == json!(socket.id()) && member["joinedAt"].is_u64(), "{status}");
    let published = post_json(addr, "/api/rooms/club/say", r#"{"message":{"deep":[1]}}"#).await;
    assert_eq!(without_metadata(published.json()), json!({}));
    let received = socket.read().await;
    assert_eq!(
        (&received["from"], &received["message"], &received["room"]),
        (&json!("0"), &json!({ "deep": [1] }), &json!("club"))
    );
    assert!(received["context"] == "user" && received["sentAt"].is_u64(), "{received}");
    for text in ["/drop", "/shout x y"] {
        socket.send(&json!({ "event": "say", "room": "club", "message": text }).to_string()).await;
    }
    assert_eq!(socket.next_in("user").await["message"], "X Y");
    let id = socket.id();
    socket.request(r#"{"event":"roomLeave","room":"club"}"#).await;
    assert_eq!(plain(addr, "/api/lists/leaves").await, json!({ "values": [format!("club:{id}")] }));
    assert_eq!(post_json(addr, "/api/rooms/nowhere/say", r#"{"message":1}"#).await.error_code(), "not_found");
}

#[tokio::test]
async fn a_connection_is_reached_by_its_id_and_each_failure_has_its_code() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    let mut socket = Socket::connect(addr).await;
    let id = socket.id();
    let generation = plain(addr, "/api/status").await["generation"].as_str().unwrap().to_owned();
    let apply = async |id: &str, body: Value| {
        let answer = post_json(addr, &format!("/api/connections/{id}/apply"), &body.to_string()).await;
        (answer.status, without_metadata(answer.json()))
    };
    assert_eq!(socket.request(r#"{"event":"roomAdd","room":"vip"}"#).await["error"]["code"], "forbidden");
    let authorized = apply(&id, json!({ "method": "authorize", "args": { "level": 1 } })).await;
    assert_eq!(authorized, (200, json!({ "result": { "was": null, "now": 1.0 } })));
    assert_eq!(socket.request(r#"{"event":"roomAdd","room":"vip"}"#).await["status"], "OK");
    let (_, details) = apply(&id, json!({})).await;
    assert_eq!((&details["result"]["id"], &details["result"]["rooms"]), (&json!(id), &json!(["vip"])));
    assert_eq!(apply(&id, json!({ "method": "set", "args": ["k", [1]] })).await.0, 200);
    assert_eq!(apply(&id, json!({ "method": "get", "args": ["k"] })).await.1, json!({ "result": [1] }));
    assert_eq!(apply(&id, json!({ "method": "sendMessage", "args": { "hi": 1 } })).await.0, 200);
    assert_eq!(socket.read().await["hi"], 1);
    let unknown = format!("{generation}-AAAAAAAAAAAAAAAAAAAAAA");
    for (id, body, status, code) in [
        (unknown.as_str(), json!({ "method": "details" }), 404, "not_found"),
        ("made-up", json!({ "method": "details" }), 404, "not_found"),
        (&id, json!({ "method": "explode" }), 404, "unknown_method"),
        (&id, json!({ "method": "authorize", "args": { "level": "high" } }), 422, "invalid_input"),
        (&id, json!({ "method": "set", "args": [] }), 422, "invalid_input"),
    ] {
        let (answered, answer) = apply(id, body.clone()).await;
        assert_eq!((answered, &answer["error"]["code"]), (status, &json!(code)), "{body} {answer}");
    }
    assert_eq!(apply(&id, json!({ "method": "destroy" })).await.0, 200);
    assert_eq!(socket.closed().await, 4500);
}

#[tokio::test]
async fn a_webhook_is_taken_if_its_bytes_are_signed() {
    let node = Process::start("tour", &[]).await;
    let push = async |headers: &[&str], body: &[u8]| {
        let answer = request(node.addr, "POST /api/webhook", headers, body).await;
        (answer.status, if answer.status == 200 { answer.json()["bytes"].clone() } else { answer.error_code().into() })
    };
    const BODY: &[u8] = b"\xff{not json";
    const SIGNED: &str = "x-signature: 089036fe5cb785d24b1ca18cd96593ae7030b7a1780340d4e03dc494c9e95406";
    let prefixed = SIGNED.replace(": ", ": sha256=");
    for headers in [&[SIGNED][..], &[&prefixed], &[SIGNED, "content-type: application/json", "content-encoding: gzip"]]
    {
        assert_eq!(push(headers, BODY).await, (200, json!(10)), "{headers:?}");
    }
    let empty = "x-signature: 2978e95b9e32943b80b06c3cc484d43d6e872c72b5cc24e1f28d1e63336323eb";
    assert_eq!(push(&[empty], b"").await, (200, json!(0)));
    let mismatch = (401, json!("signature_mismatch"));
    let other = SIGNED.replace(": 0", ": 1");
    for headers in [
        &[][..],
        &[empty],
        &[&other],
        &[SIGNED, SIGNED],
        &["x-signature: "],
        &["x-signature: sha256=089036fe5cb785d24b1ca18cd96593ae7030b7a1780340d4e03dc494c9e954zz"],
    ] {
        assert_eq!(push(headers, BODY).await, mismatch, "{headers:?}");
    }
    assert_eq!(push(&[SIGNED], b"\xff{not JSON").await, mismatch);
    let mut socket = Socket::connect(node.addr).await;
    assert_eq!(act(&mut socket, "webhook", json!({})).await["error"]["code"], "forbidden");
}

#[tokio::test]
async fn a_visitor_signs_in_and_out() {
    let node = Process::start("tour", &[]).await;
    let addr = node.addr;
    const JSON: &str = "content-type: application/json";
    let right = br#"{"user":"ada","password":"open sesame"}"#;
    for (wrong, code) in [
        (r#"{"user":"ada","password":"open"}"#, "unauthenticated"),
        (r#"{"user":"Ada Lovelace","password":"open sesame"}"#, "invalid_input"),
        (r#"{"user":"a","password":"open sesame"}"#, "invalid_input"),
    ] {
        assert_eq!(post_json(addr, "/api/signIn", wrong).await.error_code(), code, "{wrong}");
    }
    assert_eq!(get(addr, "/api/whoAmI").await.error_code(), "unauthenticated");
    let signed_in = request(addr, "POST /api/signIn", &[JSON], right).await;
    assert_eq!((signed_in.status, &signed_in.json()["user"]), (200, &json!("ada")));
    let line = signed_in.head.lines().find(|line| line.contains("tour-session=")).unwrap();
    let cookie = line.split_once(": ").unwrap().1.split(';').next().unwrap().to_owned();
    let with_cookie = format!("cookie: {cookie}");
    let ask = async || without_metadata(request(addr, "GET /api/whoAmI", &[&with_cookie], b"").await.json());
    assert_eq!(ask().await, json!({ "user": "ada", "visits": 1 }));
    let mut socket = Socket::connect_with(addr, "/ws", &[("cookie", &cookie)]).await.unwrap();
    assert_eq!(act(&mut socket, "whoAmI", json!({})).await["visits"], 2);
    assert_eq!(act(&mut socket, "signIn", json!({})).await["error"]["code"], "forbidden");
    assert_eq!(ask().await, json!({ "user": "ada", "visits": 3 }));
    let signed_out = request(addr, "POST /api/signOut", &[JSON, &with_cookie], b"{}").await;
    assert_eq!(signed_out.status, 200, "{}", signed_out.head);
    assert_eq!(ask().await["error"]["code"], "unauthenticated");
    assert_eq!(socket.closed().await, 4501);
}

#[tokio::test]
async fn an_address_may_call_a_limited_action_ten_times_over_both_transports() {
    let node = Process::start("tour", &[]).await;
    let mut socket = Socket::connect(node.addr).await;
    for _ in 0..5 {
        assert_eq!(plain(node.addr, "/api/limited").await, json!({ "ok": true }));
        assert_eq!(act(&mut socket, "limited", json!({})).await["ok"], true);
    }
    let refused = get(node.addr, "/api/limited").await;
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "rate_limited"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"limited\";q=10;w=10"));
    assert_eq!(act(&mut socket, "limited", json!({})).await["error"]["code"], "rate_limited");
    let set = [("PHALANX__LIMITS__LIMITED", "2/1m")];
    let node = Process::start("tour", &set).await;
    let statuses = [get(node.addr, "/api/limited").await.status, get(node.addr, "/api/limited").await.status];
    assert_eq!((statuses, get(node.addr, "/api/limited").await.status), ([200, 200], 429));
}

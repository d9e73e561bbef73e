//! WebSocket: verbs, their order, and the answers to invalid input.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::{settings, start};
use crate::client::{RawSocket, Socket};

#[tokio::test]
async fn a_client_is_welcomed_and_its_verbs_are_answered() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    let id = socket.id();
    assert!(id.starts_with(node.node().generation().as_str()), "{id}");
    assert_eq!((&socket.welcome["context"], &socket.welcome["protocol"]), (&json!("api"), &json!(1)));
    let echoed = socket.request(r#"{"event":"action","messageId":"a","params":{"action":"echo","text":"hi"}}"#).await;
    assert_eq!(echoed, json!({"text": "hi", "context": "response", "messageId": "a"}));
    let text = socket.request(r#"{"event":"action","messageId":"b","params":{"action":"text"}}"#).await;
    assert_eq!(text, json!({"result": "just text", "context": "response", "messageId": "b"}));
    let joined = socket.request(r#"{"event":"roomAdd","room":"quiet","messageId":2}"#).await;
    assert_eq!(joined, json!({"status": "OK", "context": "response", "data": true, "messageId": 2}));
    let details = socket.request(r#"{"event":"detailsView","messageId":3}"#).await;
    assert_eq!((&details["data"]["id"], &details["data"]["rooms"]), (&json!(id), &json!(["quiet"])));
    let room = socket.request(r#"{"event":"roomView","room":"quiet","messageId":4}"#).await;
    assert_eq!((&room["data"]["membersCount"], &room["data"]["members"][&id]["id"]), (&json!(1), &json!(id)));
    socket.send(r#"{"event":"say","room":"quiet","message":{"deep":[1]},"messageId":5}"#).await;
    let (one, two) = (socket.read().await, socket.read().await);
    let (message, ok) = if one["context"] == "user" { (one, two) } else { (two, one) };
    assert_eq!(ok, json!({"status": "OK", "context": "response", "messageId": 5}));
    assert_eq!(
        (&message["message"], &message["from"], &message["room"]),
        (&json!({"deep": [1]}), &json!(id), &json!("quiet"))
    );
    let left = socket.request(r#"{"event":"roomLeave","room":"quiet","messageId":6}"#).await;
    assert_eq!(left["data"], true);
    socket.send(r#"{"event":"quit"}"#).await;
    assert_eq!(socket.closed().await, 1000);
    node.stop().await;
}

#[tokio::test]
async fn invalid_frames_get_a_typed_error_and_the_socket_remains_open() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    for (frame, code) in [
        ("not json", "malformed"),
        ("null", "malformed"),
        ("5", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        (r#"{"event":5}"#, "malformed"),
        (r#"{"event":"bogus"}"#, "not_found"),
        (r#"{"event":"file","file":{"a":1}}"#, "invalid_input"),
        (r#"{"event":"file","file":"missing.txt"}"#, "not_found"),
        (r#"{"event":"file","file":"../Cargo.toml"}"#, "not_found"),
        (r#"{"event":"roomAdd","room":5}"#, "invalid_input"),
        (r#"{"event":"roomAdd"}"#, "invalid_input"),
        (r#"{"event":"roomAdd","room":"nowhere"}"#, "not_found"),
        (r#"{"event":"roomAdd","room":"vip"}"#, "forbidden"),
        (r#"{"event":"roomLeave","room":"lobby"}"#, "forbidden"),
        (r#"{"event":"roomView","room":"lobby"}"#, "forbidden"),
        (r#"{"event":"say","room":"lobby","message":"x"}"#, "forbidden"),
        (r#"{"event":"say","room":"nowhere","message":"x"}"#, "not_found"),
        (r#"{"event":"say"}"#, "invalid_input"),
        (r#"{"event":"detailsView","messageId":{}}"#, "invalid_input"),
        (r#"{"event":"action"}"#, "not_found"),
        (r#"{"event":"action","params":null}"#, "not_found"),
        (r#"{"event":"action","params":[]}"#, "not_found"),
        (r#"{"event":"action","params":{"action":"inner"}}"#, "not_found"),
        (r#"{"event":"action","params":{"action":"http_only"}}"#, "forbidden"),
        (r#"{"event":"action","params":{"action":"panics"}}"#, "internal"),
        (r#"{"event":"action","params":{"action":"checked"}}"#, "invalid_input"),
        (r#"{"event":"action","params":{"action":"checked","string":5}}"#, "invalid_input"),
    ] {
        let answer = socket.request(frame).await;
        assert_eq!(answer["error"]["code"], code, "{frame} {answer}");
    }
    socket.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    let twice = socket.request(r#"{"event":"roomAdd","room":"quiet"}"#).await;
    assert_eq!(twice["error"]["code"], "conflict");
    node.stop().await;
}

#[tokio::test]
async fn fatal_frames_close_the_socket_with_their_code() {
    let mut config = settings();
    config.websocket.heartbeat = Duration::from_secs(60);
    let node = start(config).await;
    let addr = node.addr();
    let mut binary = Socket::connect(addr).await;
    binary.send_binary(b"x").await;
    assert_eq!(binary.closed().await, 1003);
    let mut malformed = Socket::connect(addr).await;
    for _ in 0..10 {
        malformed.send("{").await;
    }
    assert_eq!(malformed.closed().await, 1008);
    let mut large = Socket::connect(addr).await;
    large.send(&format!(r#"{{"event":"say","message":"{}"}}"#, "x".repeat(70_000))).await;
    assert_eq!(large.closed().await, 1009);
    node.stop().await;
}

#[tokio::test]
async fn a_breach_of_the_protocol_closes_with_1002_and_invalid_text_with_1007() {
    let node = start(settings()).await;
    let masked = RawSocket::masked;
    for (bytes, code) in [
        (vec![0x81, 2, b'{', b'}'], 1002), // not masked
        (masked(0xc1, b"{}"), 1002),       // a reserved bit
        (masked(0x83, b"{}"), 1002),       // reserved opcodes
        (masked(0x8b, b""), 1002),
        (masked(0x80, b"{}"), 1002), // a continuation of nothing
        ([masked(0x01, b"{"), masked(0x81, b"}")].concat(), 1002), // a message within a message
        (masked(0x09, b""), 1002),   // a ping in parts
        (masked(0x89, &[b'x'; 126]), 1002), // a long ping
        (masked(0x88, &[3]), 1002),  // half a close code
        (masked(0x88, &1005_u16.to_be_bytes()), 1002), // a code that is never sent
        (masked(0x81, b"\"\xff\""), 1007),
        (masked(0x81, b"\"\xed\xa0\x80\""), 1007), // a surrogate, encoded
        ([masked(0x01, b"\"\xc3"), masked(0x80, b"x\"")].concat(), 1007), // between two parts
        (masked(0x88, b"\x03\xe8\xff"), 1007),     // in the reason of a close
        (masked(0x82, b"x"), 1003),
    ] {
        let mut socket = RawSocket::connect(node.addr()).await;
        socket.writer.write_all(&bytes).await.unwrap();
        assert_eq!(socket.closed().await, code, "{bytes:02x?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_flood_is_refused_and_then_closed() {
    let mut config = settings();
    config.websocket.messages_per_second = 1;
    config.websocket.message_burst = 2;
    let node = start(config).await;
    let mut socket = Socket::connect(node.addr()).await;
    for _ in 0..2 {
        assert!(socket.request(r#"{"event":"detailsView"}"#).await.get("data").is_some());
    }
    let refused = socket.request(r#"{"event":"detailsView"}"#).await;
    assert_eq!(refused["error"]["code"], "rate_limited");
    for _ in 0..205 {
        socket.send(r#"{"event":"detailsView"}"#).await;
    }
    assert_eq!(socket.closed().await, 4003);
    node.stop().await;
}

#[tokio::test]
async fn a_large_reply_to_a_verb_costs_as_much_as_several_messages() {
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("large.txt"), "x".repeat(320 * 1024)).unwrap();
    let mut config = settings();
    config.paths.public = vec![public.path().to_owned()];
    config.websocket.messages_per_second = 1;
    config.websocket.message_burst = 60;
    let node = start(config).await;
    let mut socket = Socket::connect(node.addr()).await;
    for left in [39, 18, -3] {
        let file = socket.request(r#"{"event":"file","file":"large.txt"}"#).await;
        assert_eq!(file["length"], 320 * 1024, "sent in any case, with {left} tokens left");
    }
    let refused = socket.request(r#"{"event":"detailsView"}"#).await;
    assert_eq!(refused["error"]["code"], "rate_limited");
    node.stop().await;
}

#[tokio::test]
async fn the_members_of_a_large_room_are_listed_page_by_page() {
    let node = start(settings()).await;
    let mut sockets = Vec::new();
    for _ in 0..101 {
        sockets.push(Socket::join(node.addr(), "quiet").await);
    }
    let socket = &mut sockets[0];
    let first = socket.request(r#"{"event":"roomView","room":"quiet"}"#).await["data"].take();
    assert_eq!((first["members"].as_object().unwrap().len(), &first["membersCount"]), (100, &json!(101)));
    let next = json!({ "event": "roomView", "room": "quiet", "after": first["next"] });
    let second = socket.request(&next.to_string()).await["data"].take();
    assert_eq!((second["members"].as_object().unwrap().len(), second.get("next")), (1, None));
    let status = node.node().rooms().status("quiet").await.unwrap().members;
    let rest = node.node().rooms().members_page("quiet", status.next.as_ref()).await.unwrap();
    assert_eq!((status.listed.len(), rest.listed.len(), rest.next), (100, 1, None));
    let refused = socket.request(r#"{"event":"roomView","room":"quiet","after":"mine"}"#).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["details"][0]["path"]),
        (&json!("invalid_input"), &json!("after"))
    );
    node.stop().await;
}

#[tokio::test]
async fn a_byte_order_mark_before_a_frame_is_ignored_and_what_strict_readers_refuse_is_malformed() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    let marked = "\u{feff}{\"event\":\"roomAdd\",\"room\":\"quiet\",\"messageId\":1}";
    assert_eq!(socket.request(marked).await, json!({"status":"OK","context":"response","data":true,"messageId":1}));
    for message in [r#""\ud83d""#, r#"["\ude00\ud83d"]"#, "1e400", r#"{"a":[-1e999]}"#, r#"{"\udead":1}"#] {
        let say = format!(r#"{{"event":"say","room":"quiet","message":{message},"messageId":2}}"#);
        let refused = socket.request(&say).await;
        assert_eq!((&refused["error"]["code"], &refused["messageId"]), (&json!("malformed"), &json!(2)), "{message}");
        let id = format!(r#"{{"event":"detailsView","messageId":{message}}}"#);
        let refused = socket.request(&id).await;
        assert!(refused["error"]["code"] == "malformed" || message.starts_with(['[', '{']), "{refused}");
    }
    let say = r#"{"event":"say","room":"quiet","message":["\ud83d\ude00",1e308,"1e400"]}"#;
    socket.send(say).await;
    assert_eq!(socket.next_in("user").await["message"], json!(["\u{1f600}", 1e308, "1e400"]));
    node.stop().await;
}

#[tokio::test]
async fn an_answer_larger_than_the_outbox_is_refused_and_the_socket_remains_open() {
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("control.txt"), "\u{1}".repeat(1000)).unwrap(); // six bytes each as JSON
    let mut config = settings();
    config.paths.public = vec![public.path().to_owned()];
    config.websocket.max_file = "1KiB".parse().unwrap();
    config.websocket.outbox_bytes = "4KiB".parse().unwrap();
    config.rooms.max_message = "3KiB".parse().unwrap();
    let node = start(config).await;
    let mut socket = Socket::connect(node.addr()).await;
    let echo = json!({ "event": "action", "params": { "action": "echo", "text": "x".repeat(5000) } });
    for frame in [echo, json!({ "event": "file", "file": "control.txt" })] {
        assert_eq!(socket.request(&frame.to_string()).await["error"]["code"], "payload_too_large");
    }
    let id = phalanx::ConnectionId::parse(&socket.id()).unwrap();
    let refused = node.node().connections().apply(&id, "sendMessage", json!("x".repeat(5000))).await.unwrap_err();
    assert_eq!(phalanx::ActionError::from(refused).code(), "payload_too_large");
    assert!(socket.request(r#"{"event":"detailsView"}"#).await.get("data").is_some());
}

#[tokio::test]
async fn an_application_closes_with_a_code_that_forbids_reconnecting() {
    let node = start(settings()).await;
    for code in [4501, 4600] {
        let mut socket = Socket::connect(node.addr()).await;
        let id = phalanx::ConnectionId::parse(&socket.id()).unwrap();
        let connections = node.node().connections();
        let refused = connections.apply(&id, "destroy", json!(4001)).await.unwrap_err();
        assert_eq!(phalanx::ActionError::from(refused).code(), "invalid_input");
        connections.apply(&id, "destroy", json!([code])).await.unwrap();
        assert_eq!(socket.closed().await, code);
    }
}

#[tokio::test]
async fn methods_run_on_a_connection_and_their_errors_are_typed() {
    let node = start(settings()).await;
    let mut socket = Socket::connect(node.addr()).await;
    let id = phalanx::ConnectionId::parse(&socket.id()).unwrap();
    let connections = node.node().connections();
    assert_eq!(connections.apply(&id, "set", json!(["k", {"a": 1}])).await.unwrap(), true);
    assert_eq!(connections.apply(&id, "get", json!(["k"])).await.unwrap(), json!({"a": 1}));
    assert_eq!(connections.apply(&id, "", Value::Null).await.unwrap()["k"], json!({"a": 1}));
    assert_eq!(connections.apply(&id, "authorize", json!({"level": 2})).await.unwrap(), json!({"level": 2}));
    assert_eq!(socket.request(r#"{"event":"roomAdd","room":"vip"}"#).await["data"], true);
    connections.apply(&id, "sendMessage", json!({"hello": 1})).await.unwrap();
    assert_eq!(socket.read().await["hello"], 1);
    let refused = connections.apply(&id, "authorize", json!({"level": "x"})).await.unwrap_err();
    assert_eq!(phalanx::ActionError::from(refused).code(), "invalid_input");
    let unknown = connections.apply(&id, "explode", Value::Null).await.unwrap_err();
    assert_eq!(phalanx::ActionError::from(unknown).code(), "unknown_method");
    let large = connections.apply(&id, "set", json!(["big", "x".repeat(20_000)])).await.unwrap_err();
    assert_eq!(phalanx::ActionError::from(large).code(), "payload_too_large");
    connections.apply(&id, "destroy", Value::Null).await.unwrap();
    assert_eq!(socket.closed().await, 4500);
    node.stop().await;
}

#[tokio::test]
async fn frames_sent_with_the_handshake_are_processed() {
    let node = start(settings()).await;
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let encoded = |id: u8| {
        let text = format!(r#"{{"event":"detailsView","messageId":{id}}}"#);
        [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
    };
    let (first, second) = (encoded(1), encoded(2));
    let (start, rest) = second.split_at(10);
    stream.write_all(&[head.as_bytes(), &first, start].concat()).await.unwrap();
    let mut received = Vec::new();
    read_until(&mut stream, &mut received, r#""messageId":1}"#).await;
    stream.write_all(rest).await.unwrap();
    read_until(&mut stream, &mut received, r#""messageId":2}"#).await;
    node.stop().await;
}

/// Reads until the bytes received so far contain `expected`.
async fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, expected: &str) {
    while !String::from_utf8_lossy(received).contains(expected) {
        let read = timeout(Duration::from_secs(10), stream.read_buf(received)).await;
        assert_ne!(read.expect("an answer").unwrap(), 0, "{expected}: {}", String::from_utf8_lossy(received));
    }
}

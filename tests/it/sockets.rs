//! Sockets from the upgrade to the close: admission, hooks, limits, close codes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx::config::Config;
use phalanx::hooks::LeaveCause;
use phalanx::prelude::*;
use phalanx::{ConnectionId, RunningApp};
use phalanx_testkit::check_time;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::app::settings;
use crate::client::{Socket, get};

/// The events that the hooks and actions below recorded.
#[derive(Default)]
pub(crate) struct Recorded {
    log: Mutex<Vec<String>>,
    changed: Notify,
    dropped: AtomicUsize,
}

impl Recorded {
    fn record(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
        self.changed.notify_waiters();
    }

    /// Waits until this line is recorded, and returns all lines so far.
    async fn until(&self, line: &str) -> Vec<String> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                let log = self.log.lock().unwrap().clone();
                if log.iter().any(|recorded| recorded == line) {
                    return log;
                }
                changed.await;
            }
        };
        timeout(Duration::from_secs(20), found).await.unwrap_or_else(|_| panic!("{line}: {:?}", self.log.lock()))
    }
}

fn recorded(ctx: &Context) -> State<Arc<Recorded>> {
    ctx.state().unwrap()
}

/// Refuses, panics, waits or sets the id, by the parameter `as`.
async fn connect(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    match connecting.query().get_str("as").as_deref() {
        Some("unknown") => return Err(ActionError::of(ErrorKind::Unauthenticated, "sign in first")),
        Some("banned") => return Err(ActionError::forbidden("you are banned")),
        Some("bomb") => panic!("on purpose"),
        Some("never") => std::future::pending().await,
        Some(name) => {
            connecting.set_id(ConnectionId::parse(&format!("user-{name}"))?);
            connecting.set("name", name)?;
        }
        None => {
            if let Some(id) = connecting.query().get_str("id") {
                connecting.set_id(ConnectionId::parse(&id)?);
            }
        }
    }
    Ok(())
}

async fn connected(ctx: Context, connection: Connection) {
    recorded(&ctx).record("created");
    assert_ne!(connection.get("name"), Some("fragile".into()), "on purpose");
}

async fn disconnected(ctx: Context, connection: Connection, reason: CloseReason) {
    assert!(connection.rooms().is_empty(), "it has left its rooms");
    if connection.get("name") == Some("slow".into()) {
        recorded(&ctx).until("released").await;
    }
    recorded(&ctx).record(format!("destroyed {}", reason.as_str()));
}

async fn before_join(joining: Joining) -> Result<(), ActionError> {
    match joining.room() {
        "never" => std::future::pending().await,
        "bomb" => panic!("on purpose"),
        "both" => joining.context().rooms().join(joining.connection(), "other").await,
        _ => Ok(()),
    }
}

async fn before_leave(leaving: Leaving) -> Result<(), ActionError> {
    recorded(leaving.context()).record(format!("before_leave {}", leaving.room()));
    match leaving.room() {
        "hotel" => Err(ActionError::forbidden("you can never leave")),
        _ => Ok(()),
    }
}

async fn after_leave(left: LeftRoom) {
    let cause = match left.cause() {
        LeaveCause::Requested => "requested",
        LeaveCause::Closed => "disconnected",
        LeaveCause::RoomDestroyed => "destroyed",
        _ => "died",
    };
    recorded(left.context()).record(format!("leave {} {cause}", left.room()));
}

async fn before_publish(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    match publishing.message().message.get() {
        "\"/error\"" => Err(ActionError::new(ErrorKind::Forbidden, "mind_your_tongue", "not here")),
        "\"/bomb\"" => panic!("on purpose"),
        _ => Ok(Some(publishing.into_message())),
    }
}

/// Delivers each message in `whispers` only to the recipient that it names.
fn whisper(delivering: Delivering<'_>) -> Delivery {
    let (to, message) = (delivering.connection(), delivering.message());
    if &*message.room != "whispers" || !to.is_in("whispers") {
        return Delivery::Unchanged;
    }
    let Ok((name, text)) = message.read::<(String, String)>() else { panic!("on purpose") };
    if to.get("name") != Some(name.into()) {
        return Delivery::Drop;
    }
    message.clone().with_message(&text).map_or(Delivery::Drop, Delivery::Replace)
}

/// The gate that `on_its_own` waits at.
pub(crate) struct Gate(Semaphore);

/// Records that it was dropped.
struct RecordsDrop(State<Arc<Recorded>>);

impl Drop for RecordsDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// Cancelled when its client disconnects.
#[action(cancel_on_disconnect)]
pub(crate) async fn with_client(_ctx: Context, recorded: State<Arc<Recorded>>, _: NoInput) -> Result<(), ActionError> {
    recorded.record("with_client started");
    let _guard = RecordsDrop(recorded);
    std::future::pending().await
}

/// Continues after its client has disconnected.
#[action]
pub(crate) async fn on_its_own(
    _ctx: Context,
    recorded: State<Arc<Recorded>>,
    gate: State<Gate>,
    _: NoInput,
) -> Result<(), ActionError> {
    recorded.record("on_its_own started");
    gate.0.acquire().await.map_err(ActionError::internal)?.forget();
    recorded.record("on_its_own ended");
    Ok(())
}

async fn start(change: impl FnOnce(&mut Config)) -> (RunningApp, Arc<Recorded>) {
    let mut config = settings();
    config.rooms.start =
        ["lobby", "other", "third", "never", "bomb", "both", "hotel", "whispers"].map(Into::into).into();
    change(&mut config);
    let recorded = Arc::new(Recorded::default());
    let app = App::new("sockets")
        .actions(actions![with_client, on_its_own])
        .state(recorded.clone())
        .state(Gate(Semaphore::new(0)))
        .before_connect(connect)
        .after_connect(connected)
        .after_disconnect(disconnected)
        .before_join(before_join)
        .before_leave(before_leave)
        .after_leave(after_leave)
        .before_publish(before_publish)
        .before_deliver(whisper);
    (app.start(config).await.unwrap(), recorded)
}

async fn details(socket: &mut Socket) -> Value {
    socket.request(r#"{"event":"detailsView"}"#).await["data"].take()
}

/// Joins a room and returns the outcome: `OK` or the code of the error.
async fn join(socket: &mut Socket, room: &str) -> String {
    let answer = socket.request(&json!({ "event": "roomAdd", "room": room }).to_string()).await;
    answer["status"].as_str().or(answer["error"]["code"].as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn details_have_the_fields_of_the_contract() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let details = details(&mut socket).await;
    let keys: BTreeSet<&str> = details.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "id fingerprint remoteIP remotePort params connectedAt rooms totalActions pendingActions";
    let expected: BTreeSet<&str> = expected.split(' ').collect();
    assert_eq!(keys, expected);
    assert_eq!((&details["remoteIP"], &details["params"]), (&json!("127.0.0.1"), &json!({})));
    for (field, value) in [("heartbeatMs", json!(30_000)), ("maxFrameBytes", json!(65_536)), ("protocol", json!(1))] {
        assert_eq!(socket.welcome[field], value);
    }
}

#[tokio::test]
async fn the_connect_hook_refuses_before_the_upgrade_or_sets_the_id() {
    let (node, _) = start(|config| config.general.action_deadline = Duration::from_millis(300)).await;
    let addr = node.addr();
    for (name, status, code) in [
        ("unknown", 401, "unauthenticated"),
        ("banned", 403, "forbidden"),
        ("bomb", 500, "internal"),
        ("never", 504, "timeout"),
    ] {
        let started = Instant::now();
        let refused = Socket::connect_with(addr, &format!("/ws?as={name}"), &[]).await.err().unwrap();
        assert_eq!((refused.status, refused.error_code().as_str()), (status, code));
        if name == "never" {
            check_time("a deadline of 300 ms: refused", started.elapsed(), Duration::from_millis(300));
        }
    }
    assert_eq!(node.node().connections().count(), 0);
    let mut ann = Socket::connect_with(addr, "/ws?as=ann", &[]).await.ok().unwrap();
    assert_eq!((ann.id().as_str(), &details(&mut ann).await["id"]), ("user-ann", &json!("user-ann")));
    let id = ConnectionId::parse("user-ann").unwrap();
    assert_eq!(node.node().connections().apply(&id, "get", json!(["name"])).await.unwrap(), "ann");
    let taken = Socket::connect_with(addr, "/ws?as=ann", &[]).await.err().unwrap();
    assert_eq!((taken.status, taken.error_code().as_str()), (409, "conflict"));
    for reserved in ["0", "abcdefghij-abcdefghijklmnopqrstuv"] {
        let refused = Socket::connect_with(addr, &format!("/ws?id={reserved}"), &[]).await.err().unwrap();
        assert_eq!((refused.status, refused.error_code().as_str()), (422, "invalid_input"), "{reserved}");
    }
    let mut fragile = Socket::connect_with(addr, "/ws?as=fragile", &[]).await.ok().unwrap();
    assert_eq!(details(&mut fragile).await["id"], "user-fragile");
}

#[tokio::test]
async fn foreign_origins_and_excess_upgrades_and_connections_are_refused() {
    let (node, _) = start(|config| {
        config.websocket.allowed_origins = vec!["https://app.example".into()];
        config.websocket.max_connections = 3;
    })
    .await;
    let addr = node.addr();
    let origin = |origin: String| async move { Socket::connect_with(addr, "/ws", &[("origin", &origin)]).await };
    let refused = origin("http://evil.example".into()).await.err().unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (403, "cross_site"));
    let _same = origin(format!("http://{addr}")).await.ok().unwrap();
    let _named = origin("https://app.example".into()).await.ok().unwrap();
    let _third = Socket::connect(addr).await;
    let excess = Socket::connect_with(addr, "/ws", &[]).await.err().unwrap();
    assert_eq!((excess.status, excess.error_code().as_str()), (503, "unavailable"));
    let plain = get(addr, "/ws").await;
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    assert!(plain.header("connection").is_some_and(|names| names.contains("upgrade")));
    let (node, _) = start(|config| {
        config.websocket.upgrades_per_second = 1;
        config.websocket.upgrade_burst = 2;
    })
    .await;
    let (_one, _two) = (Socket::connect(node.addr()).await, Socket::connect(node.addr()).await);
    let flood = Socket::connect_with(node.addr(), "/ws", &[]).await.err().unwrap();
    assert_eq!((flood.status, flood.error_code().as_str()), (429, "rate_limited"));
}

#[tokio::test]
async fn a_browser_is_identified_by_its_cookie_and_the_subprotocol_is_negotiated() {
    let (node, _) = start(|_| {}).await;
    let addr = node.addr();
    let cookie = [("cookie", "a=b; sessionID=abc123")];
    let mut socket = Socket::connect_with(addr, "/ws?sessionID=fromquery", &cookie).await.ok().unwrap();
    assert_eq!((&details(&mut socket).await["fingerprint"], socket.protocol), (&json!("abc123"), None));
    let mut socket = Socket::connect_with(addr, "/ws?sessionID=fromquery", &[]).await.ok().unwrap();
    assert_eq!(details(&mut socket).await["fingerprint"], "fromquery");
    let offered = [("sec-websocket-protocol", "other, phalanx.1")];
    let socket = Socket::connect_with(addr, "/ws", &offered).await.ok().unwrap();
    assert_eq!(socket.protocol.as_deref(), Some("phalanx.1"));
}

#[tokio::test]
async fn rooms_per_socket_and_room_names_are_limited() {
    let (node, _) = start(|config| config.websocket.max_rooms = 2).await;
    let mut socket = Socket::connect(node.addr()).await;
    assert_eq!(join(&mut socket, "lobby").await, "OK");
    assert_eq!(join(&mut socket, "both").await, "conflict"); // its hook has joined `other`: the limit is reached
    assert_eq!(details(&mut socket).await["rooms"], json!(["lobby", "other"]));
    assert_eq!(join(&mut socket, "third").await, "conflict");
    let longest = "r".repeat(100);
    for (name, code) in [
        (longest.as_str(), "not_found"),
        ("A:b.c_d-9", "not_found"),
        (&"r".repeat(101), "invalid_input"),
        ("", "invalid_input"),
        ("a b", "invalid_input"),
        ("a/b", "invalid_input"),
        ("é", "invalid_input"),
    ] {
        let refused = node.node().rooms().status(name).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}");
        let view = socket.request(&json!({ "event": "roomView", "room": name }).to_string()).await;
        assert_eq!(view["error"]["code"], code, "{name}");
    }
}

#[tokio::test]
async fn message_ids_are_returned_unchanged_or_refused() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let longest = format!("\"{}\"", "i".repeat(128));
    for id in ["1", "-1.5e3", "\"a\\u00e9\\\"\"", "\"\"", &longest] {
        let answer = socket.request(&format!(r#"{{"event":"detailsView","messageId":{id}}}"#)).await;
        assert_eq!(answer["messageId"], serde_json::from_str::<Value>(id).unwrap());
    }
    for id in [None, Some("null")] {
        let id = id.map_or(String::new(), |id| format!(r#","messageId":{id}"#));
        assert!(socket.request(&format!(r#"{{"event":"detailsView"{id}}}"#)).await["messageId"].is_string());
    }
    let too_long = format!("\"{}\"", "i".repeat(129));
    for id in ["true", "[1]", "{}", &too_long] {
        let refused = socket.request(&format!(r#"{{"event":"detailsView","messageId":{id}}}"#)).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["details"][0]["path"]),
            (&json!("invalid_input"), &json!("messageId"))
        );
    }
}

#[tokio::test]
async fn files_are_sent_whole_over_a_socket() {
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("hello.txt"), "hello file\n").unwrap();
    std::fs::write(public.path().join("raw.bin"), [0_u8, 159, 146, 150]).unwrap();
    std::fs::write(public.path().join("large.bin"), vec![b'x'; 3000]).unwrap();
    let root = public.path().to_owned();
    let (node, _) = start(|config| {
        config.paths.public = vec![root];
        config.websocket.max_file = "2KB".parse().unwrap();
    })
    .await;
    let mut socket = Socket::connect(node.addr()).await;
    let text = socket.request(r#"{"event":"file","file":"hello.txt","messageId":1}"#).await;
    assert_eq!(
        (&text["content"], &text["mime"], &text["length"]),
        (&json!("hello file\n"), &json!("text/plain"), &json!(11))
    );
    assert!(text["lastModified"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
    assert_eq!((text.get("encoding"), &text["context"], &text["messageId"]), (None, &json!("response"), &json!(1)));
    let raw = socket.request(r#"{"event":"file","file":"raw.bin"}"#).await;
    assert_eq!((&raw["content"], &raw["encoding"], &raw["length"]), (&json!("AJ+Slg=="), &json!("base64"), &json!(4)));
    for (file, code) in [("large.bin", "payload_too_large"), ("none", "not_found"), ("/etc/passwd", "not_found")] {
        let refused = socket.request(&json!({ "event": "file", "file": file }).to_string()).await;
        assert_eq!(refused["error"]["code"], code, "{file}");
    }
}

#[tokio::test]
async fn verbs_of_one_socket_take_effect_in_order() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let mut listener = Socket::join(node.addr(), "lobby").await;
    for round in 0..50 {
        for (n, verb) in ["say", "roomAdd", "say", "roomView", "roomLeave", "say"].iter().enumerate() {
            let text = json!({ "event": verb, "room": "lobby", "message": round, "messageId": n });
            socket.send(&text.to_string()).await;
        }
        for (n, code) in [Some("forbidden"), None, None, None, None, Some("forbidden")].into_iter().enumerate() {
            let answer = socket.next_in("response").await;
            assert_eq!((&answer["messageId"], answer["error"]["code"].as_str()), (&json!(n), code), "{answer}");
        }
        assert_eq!(listener.next_in("user").await["message"], round);
    }
}

#[tokio::test]
async fn a_message_in_parts_is_one_message_and_has_one_limit() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let part = |text: &str, code, last| Frame::message(text.to_owned(), OpCode::Data(code), last);
    socket.send_frame(part(r#"{"event":"deta"#, Data::Text, false)).await;
    socket.send_frame(part(r#"ilsView","messageId":7}"#, Data::Continue, true)).await;
    assert_eq!(socket.read().await["messageId"], 7);
    socket.send_frame(part("{", Data::Text, false)).await;
    for _ in 0..3 {
        socket.send_frame(part(&" ".repeat(30_000), Data::Continue, false)).await;
    }
    assert_eq!(socket.closed().await, 1009);
}

#[tokio::test]
async fn room_hooks_may_refuse_change_and_fail_without_harm() {
    let (node, recorded) = start(|config| config.general.action_deadline = Duration::from_millis(300)).await;
    let mut socket = Socket::connect(node.addr()).await;
    assert_eq!(join(&mut socket, "never").await, "timeout");
    assert_eq!(join(&mut socket, "bomb").await, "internal");
    assert_eq!(join(&mut socket, "both").await, "OK");
    assert_eq!(details(&mut socket).await["rooms"], json!(["other", "both"]));
    for (text, code) in [("/error", "mind_your_tongue"), ("/bomb", "internal")] {
        let refused = socket.request(&json!({ "event": "say", "room": "both", "message": text }).to_string()).await;
        assert_eq!(refused["error"]["code"], code);
    }
    assert_eq!(join(&mut socket, "hotel").await, "OK");
    let refused = socket.request(r#"{"event":"roomLeave","room":"hotel"}"#).await;
    assert_eq!(refused["error"]["message"], "you can never leave");
    node.node().rooms().destroy("other").await.unwrap();
    recorded.until("leave other destroyed").await;
    assert_eq!(details(&mut socket).await["rooms"], json!(["both", "hotel"]));
    drop(socket);
    let log = recorded.until("destroyed broken").await;
    let leaves: Vec<&str> = log.iter().filter(|line| line.starts_with("leave")).map(String::as_str).collect();
    assert_eq!(leaves, ["leave other destroyed", "leave both disconnected", "leave hotel disconnected"]);
    assert_eq!(node.node().rooms().status("hotel").await.unwrap().members.count, 0);
}

#[tokio::test]
async fn each_recipient_receives_what_its_hook_returns() {
    let (node, _) = start(|_| {}).await;
    let addr = node.addr();
    let mut ann = Socket::connect_with(addr, "/ws?as=ann", &[]).await.ok().unwrap();
    let mut bob = Socket::connect_with(addr, "/ws?as=bob", &[]).await.ok().unwrap();
    for socket in [&mut ann, &mut bob] {
        assert_eq!(join(socket, "whispers").await, "OK");
    }
    for message in [json!("the hook panics at this"), json!(["ann", "psst"]), json!(["bob", "hey"])] {
        ann.send(&json!({ "event": "say", "room": "whispers", "message": message }).to_string()).await;
    }
    assert_eq!(ann.next_in("user").await["message"], "psst");
    assert_eq!(bob.next_in("user").await["message"], "hey");
}

#[tokio::test]
async fn a_disconnect_cancels_only_actions_that_opted_in() {
    let (node, recorded) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    for action in ["with_client", "on_its_own"] {
        socket.send(&json!({ "event": "action", "params": { "action": action } }).to_string()).await;
        recorded.until(&format!("{action} started")).await;
    }
    assert_eq!(details(&mut socket).await["pendingActions"], 2);
    assert_eq!(socket.close().await, 1001, "the client's own code is returned");
    recorded.until("destroyed client_left").await;
    let cancelled = async {
        while recorded.dropped.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), cancelled).await.expect("the action is cancelled");
    node.node().state::<Gate>().unwrap().0.add_permits(1);
    recorded.until("on_its_own ended").await;
    assert_eq!(node.stop().await.abandoned, 0);
}

#[tokio::test]
async fn the_sixth_running_action_is_refused_and_the_five_answer() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let call = |id: u64| json!({ "event": "action", "messageId": id, "params": { "action": "on_its_own" } });
    for id in 1..=6 {
        socket.send(&call(id).to_string()).await;
    }
    let first = socket.read().await;
    assert_eq!((&first["messageId"], &first["error"]["code"]), (&json!(6), &json!("too_many_pending")));
    node.node().state::<Gate>().unwrap().0.add_permits(5);
    let mut answered = Vec::new();
    for _ in 0..5 {
        let answer = socket.read().await;
        assert_eq!(answer.get("error"), None, "{answer}");
        answered.push(answer["messageId"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_silent_client_is_closed_and_one_that_answers_pings_is_not() {
    let (node, recorded) = start(|config| config.websocket.heartbeat = Duration::from_millis(300)).await;
    let addr = node.addr();
    let healthy = tokio::spawn(async move {
        let mut socket = Socket::connect(addr).await;
        socket.closed().await
    });
    let started = Instant::now();
    assert_eq!(close_code_without_pongs(addr).await, 4002);
    // One until the ping, and one in which nothing comes.
    check_time("a heartbeat of 300 ms: closed", started.elapsed(), Duration::from_millis(600));
    recorded.until("destroyed heartbeat_lost").await;
    assert_eq!(node.node().connections().count(), 1);
    node.stop().await;
    assert_eq!(healthy.await.unwrap(), 1001);
}

#[tokio::test]
async fn a_client_that_closes_does_not_wait_for_hooks() {
    let (node, recorded) = start(|_| {}).await;
    let mut socket = Socket::connect_with(node.addr(), "/ws?as=slow", &[]).await.unwrap();
    socket.close().await;
    timeout(Duration::from_secs(10), socket.ended()).await.expect("the connection is closed while the hook runs");
    assert!(!recorded.log.lock().unwrap().iter().any(|line| line.starts_with("destroyed")));
    recorded.record("released");
    recorded.until("destroyed client_left").await;
}

/// Connects a client that reads and never writes a frame; returns the code that it is closed with.
async fn close_code_without_pongs(addr: SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let close_code = |bytes: &[u8]| {
        let reason = b"heartbeat_lost";
        let at = bytes.windows(reason.len()).position(|window| window == reason)?;
        Some(u16::from_be_bytes([bytes[at - 2], bytes[at - 1]]))
    };
    let closed = async {
        loop {
            if let Some(code) = close_code(&bytes) {
                return code;
            }
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "a close frame arrives");
        }
    };
    timeout(Duration::from_secs(20), closed).await.expect("the server closes")
}

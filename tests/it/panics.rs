//! Clients that disconnect, and application code that panics, midway: nothing is left behind and the node keeps
//! running.

use std::sync::Arc;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

use crate::app::settings;
use crate::client::Socket;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Events that hooks report to the test, and the gate that actions wait at.
pub(crate) struct Stage {
    events: mpsc::Sender<String>,
    received: Mutex<mpsc::Receiver<String>>,
    gate: Semaphore,
}

impl Stage {
    fn report(&self, event: impl Into<String>) {
        self.events.try_send(event.into()).unwrap();
    }

    /// Lets `count` waiting actions continue.
    pub(crate) fn open(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Waits for this event; others before it are dropped.
    pub(crate) async fn until(&self, event: &str) {
        let mut received = self.received.lock().await;
        let found = async { while received.recv().await.unwrap() != event {} };
        timeout(SOON, found).await.unwrap_or_else(|_| panic!("no {event}"));
    }
}

/// A value of the application that panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("on purpose")
    }
}

fn stage(ctx: &Context) -> State<Arc<Stage>> {
    ctx.state().unwrap()
}

async fn connect(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    connecting.set("as", connecting.query().get_str("as").unwrap_or_default()).map(drop)
}

async fn connected(ctx: Context, connection: Connection) {
    let message = json!({ "context": "alert", "to": "new clients" });
    ctx.connections().apply(connection.id(), "sendMessage", message).await.unwrap();
    stage(&ctx).report("created");
    if connection.get("as") == Some("slow".into()) {
        std::future::pending().await
    }
}

async fn disconnected(ctx: Context, _connection: Connection, reason: CloseReason) {
    stage(&ctx).report(format!("destroyed {}", reason.as_str()));
}

async fn join(joining: Joining) -> Result<(), ActionError> {
    let _guard = PanicsOnDrop;
    stage(joining.context()).report("joining");
    std::future::pending().await
}

/// Waits for the test; over WebSocket it would be cancelled with its client.
#[action(get, cancel_on_disconnect)]
pub(crate) async fn wait(_ctx: Context, stage: State<Arc<Stage>>, _: NoInput) -> Result<&'static str, ActionError> {
    stage.report("waiting");
    stage.gate.acquire().await.map_err(ActionError::internal)?.forget();
    Ok("done")
}

/// Panics at its deadline.
#[action(deadline = "20ms")]
pub(crate) async fn break_late(_ctx: Context) -> Result<(), ActionError> {
    let _guard = PanicsOnDrop;
    std::future::pending().await
}

pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> (RunningApp, Arc<Stage>) {
    let mut config = settings();
    change(&mut config);
    let (events, received) = mpsc::channel(64);
    let stage = Arc::new(Stage { events, received: received.into(), gate: Semaphore::new(0) });
    let app = App::new("panics").actions(actions![wait, break_late]).state(stage.clone());
    let app = app.before_connect(connect).after_connect(connected).after_disconnect(disconnected).before_join(join);
    (app.start(config).await.unwrap(), stage)
}

fn call(action: &str) -> Value {
    json!({ "event": "action", "messageId": action, "params": { "action": action } })
}

#[tokio::test]
async fn a_client_that_disconnects_during_a_hook_leaves_no_connection_behind() {
    let (node, stage) = start(|_| {}).await;
    let mut hasty = TcpStream::connect(node.addr()).await.unwrap();
    let head = "GET /ws?as=slow HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    hasty.write_all(head.as_bytes()).await.unwrap();
    stage.until("created").await;
    assert_eq!(node.node().connections().count(), 1);
    drop(hasty);
    stage.until("destroyed broken").await;
    assert_eq!(node.node().connections().count(), 0);
    assert_eq!(node.stop().await.abandoned, 0);
}

#[tokio::test]
async fn the_welcome_precedes_messages_sent_by_hooks() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    assert_eq!(socket.welcome["id"], socket.id());
    assert_eq!(socket.read().await["to"], "new clients");
}

#[tokio::test]
async fn actions_that_panic_when_they_are_cancelled_are_answered_and_release_their_permit() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    for _ in 0..6 {
        assert_eq!(socket.request_by_id(&call("break_late")).await["error"]["code"], "internal");
    }
    let details = socket.request(r#"{"event":"detailsView"}"#).await;
    assert_eq!(details["data"]["pendingActions"], 0);
}

#[tokio::test]
async fn a_hook_that_panics_when_its_verb_is_cancelled_fails_only_that_verb() {
    let (node, stage) = start(|config| config.general.action_deadline = Duration::from_millis(20)).await;
    let mut socket = Socket::connect(node.addr()).await;
    let join = json!({ "event": "roomAdd", "room": "lobby", "messageId": 1 });
    assert_eq!(socket.request_by_id(&join).await["error"]["code"], "internal");
    assert_eq!(socket.request(r#"{"event":"detailsView"}"#).await["data"]["rooms"], json!([]));
    drop(socket);
    stage.until("destroyed broken").await;
}

#[tokio::test]
async fn a_connection_closed_during_a_hook_that_panics_is_still_removed() {
    let (node, stage) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.send(&json!({ "event": "roomAdd", "room": "lobby" }).to_string()).await;
    stage.until("joining").await;
    let connection = node.node().connections().all().remove(0);
    connection.close(CloseReason::Destroyed);
    assert_eq!(socket.closed().await, 4500);
    stage.until("destroyed destroyed").await;
}

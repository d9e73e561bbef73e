//! Sockets whose client, or whose application, fails them midway: nothing is left behind, and the node lives.

use std::sync::Arc;
use std::time::Duration;

use phalanx::Running;
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

/// What hooks tell the test, and what they wait for.
pub(crate) struct Stage {
    told: mpsc::Sender<String>,
    heard: Mutex<mpsc::Receiver<String>>,
    gate: Semaphore,
}

impl Stage {
    fn tell(&self, line: impl Into<String>) {
        self.told.try_send(line.into()).unwrap();
    }

    /// Lets so many go on that wait.
    pub(crate) fn open(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Waits for that line; others before it are dropped.
    pub(crate) async fn until(&self, line: &str) {
        let mut heard = self.heard.lock().await;
        let there = async { while heard.recv().await.unwrap() != line {} };
        timeout(SOON, there).await.unwrap_or_else(|_| panic!("{line}"));
    }
}

/// Something of the application that panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("on purpose")
    }
}

struct Hooks(Arc<Stage>);

#[async_trait]
impl ConnectionHook for Hooks {
    async fn connect(&self, _node: &Node, handshake: &mut Handshake) -> Result<(), ActionError> {
        handshake.attributes.set("as", handshake.query.get_str("as").unwrap_or_default()).map(drop)
    }

    async fn created(&self, node: &Node, connection: &Connection) {
        let message = json!({ "context": "alert", "to": "whoever comes" });
        node.connections().apply(connection.id(), "sendMessage", message).await.unwrap();
        self.0.tell("created");
        if connection.get("as") == Some("slow".into()) {
            std::future::pending().await
        }
    }

    async fn destroyed(&self, _node: &Node, _connection: &Connection, reason: CloseReason) {
        self.0.tell(format!("destroyed {}", reason.as_str()));
    }
}

#[async_trait]
impl RoomHook for Hooks {
    async fn join(&self, _node: &Node, _room: &str, _connection: &Connection) -> Result<(), ActionError> {
        let _fragile = Fragile;
        self.0.tell("joining");
        std::future::pending().await
    }
}

/// Waits for the test, and would end with its client.
#[action(get, cancel_on_disconnect)]
pub(crate) async fn wait(_ctx: Context, stage: State<Arc<Stage>>, _: NoInput) -> Result<&'static str, ActionError> {
    stage.tell("waiting");
    stage.gate.acquire().await.map_err(ActionError::internal)?.forget();
    Ok("done")
}

/// Panics at its deadline.
#[action(deadline = "20ms")]
pub(crate) async fn break_late(_ctx: Context) -> Result<(), ActionError> {
    let _fragile = Fragile;
    std::future::pending().await
}

pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> (Running, Arc<Stage>) {
    let mut config = settings();
    change(&mut config);
    let (told, heard) = mpsc::channel(64);
    let stage = Arc::new(Stage { told, heard: heard.into(), gate: Semaphore::new(0) });
    let hooks = || Hooks(stage.clone());
    let app = App::new("frail").actions(actions![wait, break_late]).state(stage.clone());
    (app.on_connection(hooks()).on_room(hooks()).start(config).await.unwrap(), stage)
}

fn act(action: &str) -> Value {
    json!({ "event": "action", "messageId": action, "params": { "action": action } })
}

#[tokio::test]
async fn a_client_that_leaves_while_hooks_look_at_it_leaves_no_ghost() {
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
async fn the_welcome_comes_before_whatever_others_send() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    assert_eq!(socket.welcome["id"], socket.id());
    assert_eq!(socket.read().await["to"], "whoever comes");
}

#[tokio::test]
async fn actions_that_panic_when_they_are_given_up_are_answered_and_take_no_place_for_ever() {
    let (node, _) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    for _ in 0..6 {
        assert_eq!(socket.ask_named(&act("break_late")).await["error"]["code"], "internal");
    }
    let details = socket.ask(r#"{"event":"detailsView"}"#).await;
    assert_eq!(details["data"]["pendingActions"], 0);
}

#[tokio::test]
async fn a_hook_that_panics_when_its_verb_is_given_up_costs_that_verb_alone() {
    let (node, stage) = start(|config| config.general.action_deadline = Duration::from_millis(20)).await;
    let mut socket = Socket::connect(node.addr()).await;
    let join = json!({ "event": "roomAdd", "room": "lobby", "messageId": 1 });
    assert_eq!(socket.ask_named(&join).await["error"]["code"], "internal");
    assert_eq!(socket.ask(r#"{"event":"detailsView"}"#).await["data"]["rooms"], json!([]));
    drop(socket);
    stage.until("destroyed broken").await;
}

#[tokio::test]
async fn a_client_that_leaves_a_hook_which_panics_then_is_taken_out_as_ever() {
    let (node, stage) = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.send(&json!({ "event": "roomAdd", "room": "lobby" }).to_string()).await;
    stage.until("joining").await;
    let connection = node.node().connections().all().remove(0);
    connection.close(CloseReason::Destroyed);
    assert_eq!(socket.closed().await, 4500);
    stage.until("destroyed destroyed").await;
}

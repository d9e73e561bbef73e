//! A chat in one room: `cargo run -p chat`, then open http://localhost:8080 in two tabs. Its tests
//! are in `tests`.

pub mod actions;
#[path = "../../folders.rs"]
mod folders;

use phalanx::clap::{self, Parser};
use phalanx::prelude::*;
use serde_json::Value;

/// Adds the sender's name to every message. A message from a client must be a string, so that it cannot bring a name of
/// its own.
struct SignedMessages;

#[async_trait]
impl RoomHook for SignedMessages {
    async fn before_publish(&self, node: &Node, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError> {
        let text = message.read::<String>()?;
        let sender = ConnectionId::parse(&message.from).ok().and_then(|id| node.connections().local(&id));
        let name = sender.map_or_else(|| "server".into(), |sender| actions::name_of(&sender));
        let signed = serde_json::json!({ "name": name, "text": text });
        Ok(Some(message.with_message::<Value>(&signed)?))
    }
}

/// Says something to everybody in the lobby, as the server: `chat announce "back at nine"`.
#[derive(Parser)]
#[command(name = "announce")]
struct Announce {
    text: String,
}

async fn announce(node: Node, command: Announce) -> Result<(), ActionError> {
    node.rooms().say("lobby", &command.text).await
}

/// Builds the application.
pub fn app() -> App {
    let folders = folders::find("chat");
    App::new("chat")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(folders.config)
        .public_dir(folders.public)
        .actions(actions![actions::set_name, actions::members, actions::say])
        .on_room(SignedMessages)
        .command(announce)
}

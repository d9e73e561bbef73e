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
async fn sign(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    let text = publishing.message().read::<String>()?;
    let name = publishing.connection().map_or_else(|| "server".into(), actions::name_of);
    let signed = serde_json::json!({ "name": name, "text": text });
    Ok(Some(publishing.into_message().with_message::<Value>(&signed)?))
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
        .before_publish(sign)
        .command(announce)
}

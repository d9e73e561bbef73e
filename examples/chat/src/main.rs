//! A chat in one room: `cargo run -p chat`, then open http://localhost:8080 in two tabs.

mod actions;

use phalanx::prelude::*;
use serde_json::Value;

/// Puts the speaker's name beside what it says; anything but text is refused, so nobody can sign for another.
struct SignedMessages;

#[async_trait]
impl RoomHook for SignedMessages {
    async fn on_say(&self, node: &Node, said: Said) -> Result<Option<Said>, ActionError> {
        let text = said.read::<String>()?;
        let speaker = ConnectionId::parse(&said.from).ok().and_then(|id| node.connections().local(&id));
        let name = speaker.map_or_else(|| "server".into(), |speaker| actions::name_of(&speaker));
        let signed = serde_json::json!({ "name": name, "text": text });
        Ok(Some(said.with_message::<Value>(&signed)?))
    }
}

fn main() -> phalanx::ExitCode {
    let home = env!("CARGO_MANIFEST_DIR");
    App::new("chat")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(format!("{home}/config"))
        .public_dir(format!("{home}/public"))
        .actions(actions![actions::set_name, actions::members, actions::say])
        .on_room(SignedMessages)
        .run()
}

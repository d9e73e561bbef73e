//! The hooks of rooms, and a remote method that one of them depends on.

use phalanx::prelude::*;
use serde_json::Value;

/// Requires a level for the room `vip`.
pub(crate) async fn require_level(joining: Joining) -> Result<(), ActionError> {
    let level = joining.connection().get("level").and_then(|level| level.as_f64()).unwrap_or(0.0);
    ensure!(joining.room() != "vip" || level >= 1.0, ActionError::forbidden("this room requires a level of 1"));
    Ok(())
}

/// Records every leave.
pub(crate) async fn record_leave(left: LeftRoom) {
    let (room, id) = (left.room(), left.id());
    if let Err(error) = left.context().cache().push("leaves", &format!("{room}:{id}")).await {
        tracing::warn!(room, %id, %error, "a leave is not on the list");
    }
}

/// Handles the commands `/drop` and `/shout`.
pub(crate) async fn run_commands(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    let message = publishing.into_message();
    // Most messages are not commands: their raw JSON shows it, without decoding.
    if !message.message.get().starts_with("\"/") {
        return Ok(Some(message));
    }
    let text: String = message.read()?;
    match text.strip_prefix("/shout ") {
        Some(shouted) => Ok(Some(message.with_message(&shouted.to_uppercase())?)),
        None if text == "/drop" => Ok(None),
        None => Ok(Some(message)),
    }
}

#[input]
pub(crate) struct Authorize {
    level: f64,
}

#[output]
pub(crate) struct Authorized {
    was: Value,
    now: f64,
}

/// Sets the level of a connection and returns the previous one.
#[remote]
pub(crate) async fn authorize(me: Connection, input: Authorize) -> Result<Authorized, ActionError> {
    let was = me.set("level", input.level)?.unwrap_or_default();
    Ok(Authorized { was, now: input.level })
}

//! A room hook, and a remote method that it depends on.

use phalanx::prelude::*;
use serde_json::Value;

/// Requires a level for the room `vip`, records every leave, and handles the commands `/drop` and `/shout`.
pub(crate) struct TourRooms;

#[async_trait]
impl RoomHook for TourRooms {
    async fn join(&self, _node: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let level = connection.get("level").and_then(|level| level.as_f64()).unwrap_or(0.0);
        if room == "vip" && level < 1.0 {
            return Err(ActionError::forbidden("this room requires a level of 1"));
        }
        Ok(())
    }

    async fn left(&self, node: &Node, room: &str, id: &ConnectionId, _cause: LeaveCause<'_>) {
        if let Err(error) = node.cache().push("leaves", &format!("{room}:{id}")).await {
            tracing::warn!(room, %id, %error, "a leave is not on the list");
        }
    }

    async fn before_publish(&self, _node: &Node, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError> {
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
pub(crate) async fn authorize(_ctx: Context, me: Connection, input: Authorize) -> Result<Authorized, ActionError> {
    let was = me.set("level", input.level)?.unwrap_or_default();
    Ok(Authorized { was, now: input.level })
}

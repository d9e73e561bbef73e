//! What happens around rooms and on connections.

use phalanx::prelude::*;
use serde_json::Value;

/// `leave` is written down, `vip` wants a level, `/drop` and `/shout` are understood.
pub(crate) struct TourRooms;

#[async_trait]
impl RoomHook for TourRooms {
    async fn join(&self, _node: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let level = connection.get("level").and_then(|level| level.as_f64()).unwrap_or(0.0);
        match room == "vip" && level < 1.0 {
            true => Err(ActionError::forbidden("this room wants a level of 1")),
            false => Ok(()),
        }
    }

    async fn leave(&self, node: &Node, room: &str, id: &ConnectionId, _why: Leaving<'_>) -> Result<(), ActionError> {
        node.cache().push("leaves", &format!("{room}:{id}")).await.map(|_| ())
    }

    async fn on_say(&self, _node: &Node, said: Said) -> Result<Option<Said>, ActionError> {
        if !said.message.get().starts_with("\"/") {
            return Ok(Some(said));
        }
        let text: String = said.read()?;
        match text.strip_prefix("/shout ") {
            Some(shouted) => Ok(Some(said.with_message(&shouted.to_uppercase())?)),
            None => Ok(Some(said).filter(|_| text != "/drop")),
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

/// Sets the level of a connection.
#[remote]
pub(crate) async fn authorize(_ctx: Context, me: Connection, input: Authorize) -> Result<Authorized, ActionError> {
    let was = me.set("level", input.level)?.unwrap_or_default();
    Ok(Authorized { was, now: input.level })
}

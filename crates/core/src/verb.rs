//! Runs the operations that a WebSocket client requests, beside its actions.

use bytes::Bytes;

use crate::connection::Connection;
use crate::engine::Engine;
use crate::error::ActionError;
use crate::operation::Operation;
use crate::protocol::{self, CloseReason};
use crate::rooms::{RoomStatus, check_name};

/// The reply to a verb that succeeded.
#[derive(Debug)]
pub enum VerbAnswer {
    /// It took effect.
    Done,
    /// The message is published.
    Published,
    /// The connection itself.
    Details,
    /// A room.
    Room(RoomStatus),
    /// The JSON of a file.
    File(Bytes),
}

/// Runs a verb of that connection and calls `answer` once, at the latest when it is done; `quit` has no answer.
///
/// The answer to `roomAdd` is given in the step from which on the connection is in the room's delivery set.
pub async fn run_verb(
    engine: &Engine,
    connection: &Connection,
    operation: Operation,
    answer: impl FnOnce(Result<VerbAnswer, ActionError>) + Send,
) {
    let rooms = engine.rooms();
    match operation {
        Operation::Details => answer(Ok(VerbAnswer::Details)),
        Operation::RoomAdd(room) => {
            rooms.join_then(connection, &room, |joined| answer(joined.map(|()| VerbAnswer::Done))).await;
        }
        Operation::RoomLeave(room) => answer(rooms.leave(connection, &room).await.map(|()| VerbAnswer::Done)),
        Operation::RoomView(room, after) => {
            answer(rooms.status_for(connection, &room, after.as_ref()).await.map(VerbAnswer::Room));
        }
        Operation::Say(room, message) => {
            answer(rooms.say_raw(connection, &room, message).await.map(|()| VerbAnswer::Published));
        }
        Operation::File(path) => {
            let most = engine.config().websocket.max_file.as_u64();
            answer(engine.files().read_for_socket(&path, most, protocol::encode).await.map(VerbAnswer::File));
        }
        Operation::Quit => connection.close(CloseReason::ClientLeft),
        // The table of operations gives these no verb.
        Operation::Get(_) | Operation::Set(..) | Operation::SendMessage(_) | Operation::Destroy(_) => {
            answer(Err(ActionError::not_found("verb not found or not allowed")));
        }
    }
}

/// Checks a room's name before any other field of a verb.
///
/// # Errors
///
/// `invalid_input` if no room can have that name.
pub fn check_room(room: &str) -> Result<(), ActionError> {
    check_name(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::connection::{Attributes, NewConnection, OutboxLimit};
    use crate::engine::setup::NodeSetup;
    use crate::id::ConnectionId;

    /// A transport allocates it for each verb, with a few words beside it. Beyond 1,032 bytes glibc's allocator takes some
    /// 300 instructions more.
    #[tokio::test]
    async fn the_future_of_a_verb_is_small() {
        let engine = Engine::start(NodeSetup::new("verbs", Config::default())).await.unwrap();
        let connection = Connection::new(NewConnection {
            id: ConnectionId::parse("a-1").unwrap(),
            fingerprint: "f".into(),
            remote: ([127, 0, 0, 1], 1).into(),
            attributes: Attributes::limited(1000),
            connected_at: 0,
            outbox: OutboxLimit { frames: 8, bytes: 1000 },
        });
        let verb = run_verb(&engine, &connection, Operation::RoomAdd("lobby".to_owned()), |_| {});
        let bytes = size_of_val(&verb);
        assert!(bytes <= 960, "{bytes}");
        drop(verb);
        engine.stop().await;
    }
}

//! Everything a WebSocket client may ask besides actions, and how it is answered.

use serde_json::value::RawValue;

use crate::connection::{CloseReason, Connection};
use crate::error::ActionError;
use crate::files::FileMessage;
use crate::node::Node;
use crate::rooms::{RoomStatus, check_name};

/// What a client asks. `action` is no verb: it goes through [`crate::dispatch`].
#[derive(Debug)]
pub enum Verb {
    /// Who am I.
    DetailsView,
    /// Let me into a room.
    RoomAdd(String),
    /// Let me out of a room.
    RoomLeave(String),
    /// Who is in a room.
    RoomView(String),
    /// Tell a room.
    Say(String, Box<RawValue>),
    /// A file under the public roots.
    File(String),
    /// Good bye.
    Quit,
}

/// What a verb is answered with, if all goes well.
#[derive(Debug)]
pub enum VerbAnswer {
    /// It is done.
    Done,
    /// The message is published.
    Published,
    /// The connection that asks.
    Details,
    /// A room.
    Room(RoomStatus),
    /// A file.
    File(FileMessage),
}

impl Verb {
    /// Does what is asked and calls `answer` once, at the latest when it is done; `quit` has no answer.
    ///
    /// The answer to `roomAdd` is given in the step from which on the connection hears the room.
    pub async fn run(
        self,
        node: &Node,
        connection: &Connection,
        answer: impl FnOnce(Result<VerbAnswer, ActionError>) + Send,
    ) {
        let rooms = node.rooms();
        match self {
            Self::DetailsView => answer(Ok(VerbAnswer::Details)),
            Self::RoomAdd(room) => {
                rooms.join_then(connection, &room, |joined| answer(joined.map(|()| VerbAnswer::Done))).await;
            }
            Self::RoomLeave(room) => answer(rooms.leave(connection, &room).await.map(|()| VerbAnswer::Done)),
            Self::RoomView(room) => answer(rooms.status_for(connection, &room).await.map(VerbAnswer::Room)),
            Self::Say(room, message) => {
                answer(rooms.say_raw(connection, &room, message).await.map(|()| VerbAnswer::Published));
            }
            Self::File(path) => {
                let most = node.config().websocket.max_file.as_u64();
                answer(node.files().read_for_socket(&path, most).await.map(VerbAnswer::File));
            }
            Self::Quit => connection.close(CloseReason::ClientLeft),
        }
    }

    /// Checks a room's name before anything else is looked at.
    ///
    /// # Errors
    ///
    /// `invalid_input` if no room can have that name.
    pub fn check_room(room: &str) -> Result<(), ActionError> {
        check_name(room)
    }
}

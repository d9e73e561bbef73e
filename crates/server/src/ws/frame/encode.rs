//! Encodes the frames that a node sends. Their JSON is that of [`phalanx_core::protocol`].

use phalanx_core::connection::{Connection, Frame};
use phalanx_core::protocol::{
    ConnectionDetails, ReplyData, Welcome, encode, error_body, splice, verb_reply as reply, without_id,
};
use phalanx_core::verb::VerbAnswer;
use phalanx_core::{ActionError, Answer, Content, Engine};

/// Encodes the welcome.
pub(in crate::ws) fn welcome(engine: &Engine, connection: &Connection) -> Frame {
    let (general, settings) = (&engine.config().general, &engine.config().websocket);
    let heartbeat_ms = settings.heartbeat.as_millis() as u64;
    let id = connection.id().as_str();
    Frame::Text(encode(&Welcome::new(&general.welcome, id, heartbeat_ms, settings.max_frame_bytes.as_u64())))
}

/// Encodes the reply to an action: `context` and `messageId` are appended to the fields of its result.
pub(in crate::ws) fn action_reply(message_id: &str, outcome: Result<Answer, ActionError>) -> Frame {
    match outcome {
        Ok(Answer { content: Content::Json(object), .. }) => Frame::Text(splice(&object, message_id)),
        Ok(Answer { content: Content::Body(_), .. }) => {
            error(message_id, &ActionError::forbidden("this action answers a body, which only HTTP can carry"))
        }
        Err(refusal) => error(message_id, &refusal),
    }
}

/// Encodes an error reply.
pub(in crate::ws) fn error(message_id: &str, error: &ActionError) -> Frame {
    Frame::Text(splice(&error_body(error), message_id))
}

/// Encodes an error for a frame without a valid message id.
pub(in crate::ws) fn error_without_id(error: &ActionError) -> Frame {
    Frame::Text(without_id(&error_body(error)))
}

/// Encodes the reply to a verb.
pub(in crate::ws) fn verb_reply(
    message_id: &str,
    connection: &Connection,
    answer: Result<VerbAnswer, ActionError>,
) -> Frame {
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => return error(message_id, &refusal),
    };
    Frame::Text(match answer {
        VerbAnswer::Done => reply(message_id, &ReplyData::<ConnectionDetails<'_>>::Done),
        VerbAnswer::Published => reply(message_id, &ReplyData::<ConnectionDetails<'_>>::Published),
        VerbAnswer::Details => reply(message_id, &ReplyData::Data(&connection.details())),
        VerbAnswer::Room(room) => reply(message_id, &ReplyData::Data(&room.view())),
        VerbAnswer::File(file) => splice(&file, message_id),
    })
}

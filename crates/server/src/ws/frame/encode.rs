//! Encodes the frames that a node sends: the welcome, replies and errors.

use std::fmt::Write;

use phalanx_core::connection::{Connection, Frame};
use phalanx_core::verb::VerbAnswer;
use phalanx_core::{ActionError, Answer, Content, Node};
use serde::Serialize;

use crate::wire_error::body_of;

/// The first frame of a connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WelcomeFrame<'a> {
    welcome: &'a str,
    context: &'static str,
    id: &'a str,
    protocol: u8,
    heartbeat_ms: u64,
    max_frame_bytes: u64,
}

/// Encodes the welcome.
pub(in crate::ws) fn welcome(node: &Node, connection: &Connection) -> Frame {
    let settings = &node.config().websocket;
    frame(&WelcomeFrame {
        welcome: &node.config().general.welcome,
        context: "api",
        id: connection.id().as_str(),
        protocol: 1,
        heartbeat_ms: settings.heartbeat.as_millis() as u64,
        max_frame_bytes: settings.max_frame_bytes.as_u64(),
    })
}

/// Encodes the reply to an action: `context` and `messageId` are appended to the fields of its result.
pub(in crate::ws) fn action_reply(message_id: &str, outcome: Result<Answer, ActionError>) -> Frame {
    match outcome {
        Ok(Answer { content: Content::Json(object), .. }) => spliced(&object, message_id),
        Ok(Answer { content: Content::Body(_), .. }) => {
            error(message_id, &ActionError::forbidden("this action answers a body, which only HTTP can carry"))
        }
        Err(refusal) => error(message_id, &refusal),
    }
}

/// Encodes an error reply.
pub(in crate::ws) fn error(message_id: &str, error: &ActionError) -> Frame {
    spliced(&body_of(error), message_id)
}

/// Encodes an error for a frame without a valid message id.
pub(in crate::ws) fn error_without_id(error: &ActionError) -> Frame {
    let mut text = body_of(error);
    text.pop();
    text.extend_from_slice(b",\"context\":\"response\"}");
    Frame::Text(text.into())
}

/// Encodes the reply to a verb.
pub(in crate::ws) fn verb_reply(
    message_id: &str,
    connection: &Connection,
    answer: Result<VerbAnswer, ActionError>,
) -> Frame {
    match answer {
        Ok(VerbAnswer::Done) => Frame::Text(ok(message_id, Some("true")).into()),
        Ok(VerbAnswer::Published) => Frame::Text(ok(message_id, None).into()),
        Ok(VerbAnswer::Details) => data(message_id, &details(connection)),
        Ok(VerbAnswer::Room(room)) => data(message_id, &RoomData::from(&room)),
        Ok(VerbAnswer::File(file)) => spliced(&json(&FileData::from(&file)), message_id),
        Err(refusal) => error(message_id, &refusal),
    }
}

fn data<T: Serialize>(message_id: &str, data: &T) -> Frame {
    let data = String::from_utf8(json(data)).expect("serde_json writes UTF-8");
    Frame::Text(ok(message_id, Some(&data)).into())
}

/// Encodes `{"status":"OK",…}`.
fn ok(message_id: &str, data: Option<&str>) -> String {
    let mut text = String::with_capacity(96 + data.map_or(0, str::len));
    text.push_str(r#"{"status":"OK","context":"response""#);
    if let Some(data) = data {
        let _ = write!(text, r#","data":{data}"#);
    }
    let _ = write!(text, r#","messageId":{message_id}}}"#);
    text
}

/// Turns `{…}` into `{…,"context":"response","messageId":…}`.
pub(super) fn spliced(object: &[u8], message_id: &str) -> Frame {
    const CONTEXT: &[u8] = b"\"context\":\"response\",\"messageId\":";
    let mut text = Vec::with_capacity(object.len() + CONTEXT.len() + message_id.len() + 2);
    text.extend_from_slice(&object[..object.len() - 1]);
    if object.len() > 2 {
        text.push(b',');
    }
    text.extend_from_slice(CONTEXT);
    text.extend_from_slice(message_id.as_bytes());
    text.push(b'}');
    Frame::Text(text.into())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailsData<'a> {
    id: &'a str,
    fingerprint: &'a str,
    #[serde(rename = "remoteIP")]
    remote_ip: String,
    remote_port: u16,
    params: EmptyObject,
    connected_at: u64,
    rooms: Vec<String>,
    total_actions: u64,
    pending_actions: u32,
}

#[derive(Serialize)]
struct EmptyObject {}

fn details(connection: &Connection) -> DetailsData<'_> {
    DetailsData {
        id: connection.id().as_str(),
        fingerprint: connection.fingerprint(),
        remote_ip: connection.remote().ip().to_string(),
        remote_port: connection.remote().port(),
        params: EmptyObject {},
        connected_at: connection.connected_at(),
        rooms: connection.rooms().iter().map(|room| room.to_string()).collect(),
        total_actions: connection.total_actions(),
        pending_actions: connection.pending_actions(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomData<'a> {
    room: &'a str,
    members: std::collections::BTreeMap<&'a str, MemberData<'a>>,
    members_count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberData<'a> {
    id: &'a str,
    joined_at: u64,
}

impl<'a> From<&'a phalanx_core::RoomStatus> for RoomData<'a> {
    fn from(status: &'a phalanx_core::RoomStatus) -> Self {
        let listed = status.members.listed.iter();
        let members = listed.map(|member| {
            let id = member.id.as_str();
            (id, MemberData { id, joined_at: member.joined_at })
        });
        Self { room: &status.room, members: members.collect(), members_count: status.members.count }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
    mime: &'a str,
    length: u64,
    last_modified: &'a str,
}

impl<'a> From<&'a phalanx_core::files::FileMessage> for FileData<'a> {
    fn from(file: &'a phalanx_core::files::FileMessage) -> Self {
        Self {
            content: &file.content,
            encoding: file.encoding,
            mime: &file.mime,
            length: file.length,
            last_modified: &file.last_modified,
        }
    }
}

fn frame<T: Serialize>(value: &T) -> Frame {
    Frame::Text(json(value).into())
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("frames have only strings, numbers and maps with string keys")
}

//! Frames on the wire: what clients send, and what they are answered.
//!
//! One JSON value a frame. The dialect of Actionhero's old browser client would be another module beside this one: the
//! connection's task knows [`Asked`] and [`Answers`] alone.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use phalanx_core::bound_reached;
use phalanx_core::connection::{Connection, Frame};
use phalanx_core::params::{Params, version_of};
use phalanx_core::verb::{Verb, VerbAnswer};
use phalanx_core::{ActionError, Answer, Content, Detail, ErrorKind, Node};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire_error::body_of;

/// Most levels that a message may nest: a member's parser must not be harmed by another's message.
const MAX_DEPTH: usize = 100;

/// The first frame of a connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Welcome<'a> {
    welcome: &'a str,
    context: &'static str,
    id: &'a str,
    protocol: u8,
    heartbeat_ms: u64,
    max_frame_bytes: u64,
}

/// Greets a client.
pub(super) fn welcome(node: &Node, connection: &Connection) -> Frame {
    let settings = &node.config().websocket;
    frame(&Welcome {
        welcome: &node.config().general.welcome,
        context: "api",
        id: connection.id().as_str(),
        protocol: 1,
        heartbeat_ms: settings.heartbeat.as_millis() as u64,
        max_frame_bytes: settings.max_frame_bytes.as_u64(),
    })
}

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// An action, by name.
    Action { name: String, version: Option<u32>, params: Params },
    /// Anything else.
    Verb(Verb),
}

/// A frame of a client, read.
#[derive(Debug)]
pub(super) struct Asked {
    /// What the client calls its question; goes back with the answer as it came.
    pub(super) message_id: Option<Arc<str>>,
    /// The question, or what is wrong with it.
    pub(super) ask: Result<Ask, ActionError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    room: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
}

/// A frame that is not JSON, or no object with a string `event`: the kind that counts against a client.
#[derive(Debug)]
pub(super) struct Malformed {
    message_id: Option<Arc<str>>,
}

impl Malformed {
    /// Tells the client, by the name of its question if it has one.
    pub(super) fn answer(&self) -> Frame {
        let refused = ActionError::of(ErrorKind::Malformed, "a frame is a JSON object with a string `event`");
        self.message_id.as_ref().map_or_else(|| error_without_id(&refused), |id| error(id, &refused))
    }
}

/// Reads a frame.
pub(super) fn decode(text: &str, max_message_id: usize) -> Result<Asked, Malformed> {
    // An array would be read as the fields in their order.
    let object = Some(text).filter(|text| text.trim_start().starts_with('{'));
    let wire = object.and_then(|text| serde_json::from_str::<Wire<'_>>(text).ok());
    let wire = wire.ok_or(Malformed { message_id: None })?;
    let (message_id, id_fault) = message_id(wire.message_id, max_message_id);
    let Some(event) = wire.event.and_then(text_of) else {
        return Err(Malformed { message_id });
    };
    let ask = match id_fault {
        Some(fault) => Err(fault),
        None => ask(&event, &wire),
    };
    Ok(Asked { message_id, ask })
}

fn ask(event: &str, wire: &Wire<'_>) -> Result<Ask, ActionError> {
    Ok(Ask::Verb(match event {
        "action" => return action(wire.params),
        "say" => {
            let (room, message) = both(field(wire.room, "room"), said(wire.message))?;
            Verb::check_room(&room)?;
            Verb::Say(room, message)
        }
        "roomAdd" => Verb::RoomAdd(room(wire)?),
        "roomLeave" => Verb::RoomLeave(room(wire)?),
        "roomView" => Verb::RoomView(room(wire)?),
        "detailsView" => Verb::DetailsView,
        "file" => Verb::File(field(wire.file, "file").map_err(wrong)?),
        "quit" | "exit" => Verb::Quit,
        _ => {
            let shown: String = event.chars().take(64).collect();
            return Err(ActionError::not_found(format!("verb not found or not allowed ({shown})")));
        }
    }))
}

fn action(params: Option<&RawValue>) -> Result<Ask, ActionError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Names<'a> {
        #[serde(borrow, default)]
        action: Option<Cow<'a, str>>,
        #[serde(default)]
        api_version: Option<Value>,
    }
    let unknown = phalanx_core::dispatch::unknown_action;
    let params = params.ok_or_else(unknown)?;
    let again: Value;
    let names = match serde_json::from_str::<Names<'_>>(params.get()) {
        Ok(names) => names,
        // A doubled name is no fault: its last value counts, as in a body.
        Err(_) => {
            again = serde_json::from_str(params.get()).map_err(|_| unknown())?;
            Names::deserialize(&again).map_err(|_| unknown())?
        }
    };
    let name = names.action.ok_or_else(unknown)?.into_owned();
    let version = version_of(names.api_version.as_ref())?;
    Ok(Ask::Action { name, version, params: Params::from_raw_json(params.to_owned())? })
}

fn room(wire: &Wire<'_>) -> Result<String, ActionError> {
    let room = field(wire.room, "room").map_err(wrong)?;
    Verb::check_room(&room)?;
    Ok(room)
}

fn field(raw: Option<&RawValue>, name: &'static str) -> Result<String, Detail> {
    let raw = raw.ok_or_else(|| Detail::new(name, "required", "is required"))?;
    text_of(raw).map(Cow::into_owned).ok_or_else(|| Detail::new(name, "type", "must be a string"))
}

fn said(raw: Option<&RawValue>) -> Result<Box<RawValue>, Detail> {
    let raw = raw.ok_or_else(|| Detail::new("message", "required", "is required"))?;
    if depth_of(raw.get()) > MAX_DEPTH {
        return Err(Detail::new("message", "depth", "must not nest deeper than 100 levels"));
    }
    Ok(raw.to_owned())
}

fn wrong(detail: Detail) -> ActionError {
    ActionError::invalid_input(vec![detail])
}

fn both<A, B>(first: Result<A, Detail>, second: Result<B, Detail>) -> Result<(A, B), ActionError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => {
            let details = first.err().into_iter().chain(second.err()).collect();
            Err(ActionError::invalid_input(details))
        }
    }
}

fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    if !quoted.starts_with('"') {
        return None;
    }
    match quoted.contains('\\') {
        false => Some(Cow::Borrowed(&quoted[1..quoted.len() - 1])),
        true => serde_json::from_str(quoted).ok().map(Cow::Owned),
    }
}

/// A string or a number, as it came; what else was sent cannot be echoed.
fn message_id(raw: Option<&RawValue>, max: usize) -> (Option<Arc<str>>, Option<ActionError>) {
    let Some(raw) = raw.map(RawValue::get) else { return (None, None) };
    let plain = raw.starts_with(['"', '-']) || raw.starts_with(|first: char| first.is_ascii_digit());
    if raw == "null" {
        return (None, None);
    }
    if plain && raw.len() <= max + 2 {
        return (Some(raw.into()), None);
    }
    if plain {
        bound_reached("websocket.max_message_id_bytes");
    }
    let detail = Detail::new("messageId", "type", format!("must be a string or a number of at most {max} bytes"));
    (None, Some(ActionError::invalid_input(vec![detail])))
}

/// How deep a JSON text nests. Brackets within strings do not count.
fn depth_of(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Writes the answer to an action: its own fields at the top, `context` and `messageId` spliced onto them.
pub(super) fn action_answer(message_id: &str, outcome: Result<Answer, ActionError>) -> Frame {
    match outcome {
        Ok(Answer { content: Content::Json(object), .. }) => spliced(&object, message_id),
        Ok(Answer { content: Content::Body(_), .. }) => {
            error(message_id, &ActionError::forbidden("this action answers a body, which only HTTP can carry"))
        }
        Err(refused) => error(message_id, &refused),
    }
}

/// Writes an error.
pub(super) fn error(message_id: &str, error: &ActionError) -> Frame {
    spliced(&body_of(error), message_id)
}

/// Writes the error of a frame that has no id, or none that could be read.
pub(super) fn error_without_id(error: &ActionError) -> Frame {
    let mut text = body_of(error);
    text.pop();
    text.extend_from_slice(b",\"context\":\"response\"}");
    Frame::Text(text.into())
}

/// Writes the answer to a verb.
pub(super) fn verb_answer(message_id: &str, connection: &Connection, answer: Result<VerbAnswer, ActionError>) -> Frame {
    match answer {
        Ok(VerbAnswer::Done) => Frame::Text(ok(message_id, Some("true")).into()),
        Ok(VerbAnswer::Published) => Frame::Text(ok(message_id, None).into()),
        Ok(VerbAnswer::Details) => data(message_id, &details(connection)),
        Ok(VerbAnswer::Room(room)) => data(message_id, &RoomData::from(&room)),
        Ok(VerbAnswer::File(file)) => spliced(&json(&FileData::from(&file)), message_id),
        Err(refused) => error(message_id, &refused),
    }
}

fn data<T: Serialize>(message_id: &str, data: &T) -> Frame {
    let data = String::from_utf8(json(data)).expect("serde_json writes UTF-8");
    Frame::Text(ok(message_id, Some(&data)).into())
}

fn ok(message_id: &str, data: Option<&str>) -> String {
    let mut text = String::with_capacity(96 + data.map_or(0, str::len));
    text.push_str(r#"{"status":"OK","context":"response""#);
    if let Some(data) = data {
        let _ = write!(text, r#","data":{data}"#);
    }
    let _ = write!(text, r#","messageId":{message_id}}}"#);
    text
}

/// `{…}` becomes `{…,"context":"response","messageId":…}`.
fn spliced(object: &[u8], message_id: &str) -> Frame {
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
    params: Empty,
    connected_at: u64,
    rooms: Vec<String>,
    total_actions: u64,
    pending_actions: u32,
}

#[derive(Serialize)]
struct Empty {}

fn details(connection: &Connection) -> DetailsData<'_> {
    DetailsData {
        id: connection.id().as_str(),
        fingerprint: connection.fingerprint(),
        remote_ip: connection.remote().ip().to_string(),
        remote_port: connection.remote().port(),
        params: Empty {},
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
    serde_json::to_vec(value).expect("the wire types hold strings, numbers and maps with string keys")
}

#[cfg(test)]
mod tests;

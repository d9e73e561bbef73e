//! The frames of the WebSocket protocol: decodes the frames of clients, and encodes those of the node.
//!
//! A frame is one JSON value. The protocol of Actionhero's old browser client would be another module beside this one:
//! the connection's task uses only [`decode`], [`DecodedFrame`] and the functions that encode replies.

mod encode;

use std::borrow::Cow;

use phalanx_core::backend::MembersCursor;
use phalanx_core::bound_reached;
use phalanx_core::connection::Frame;
use phalanx_core::operation::{Operation, OperationKind};
use phalanx_core::params::{Params, version_of};
use phalanx_core::protocol::check_json;
use phalanx_core::verb::check_room;
use phalanx_core::{ActionError, Detail, ErrorKind};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) use encode::{action_reply, error, error_without_id, verb_reply, welcome};

/// The request of a frame.
#[derive(Debug)]
pub(super) enum ClientRequest<'a> {
    /// A call of an action, by its name.
    Action { name: Cow<'a, str>, version: Option<u32>, params: Params },
    /// Any other verb.
    Verb(Operation),
    /// A request that fails validation; the client gets this error.
    Invalid(ActionError),
}

/// A decoded frame of a client. It borrows from the frame: most requests are over before the next frame is read.
#[derive(Debug)]
pub(super) struct DecodedFrame<'a> {
    /// The client's id of the request, as the JSON that it sent; the reply repeats it.
    pub(super) message_id: Option<&'a str>,
    pub(super) request: ClientRequest<'a>,
}

/// A string, borrowed if it has no escapes. Serde does not borrow a `Cow` within an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of a frame, before the types of those that not every frame has are checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FrameFields<'a> {
    #[serde(borrow, default)]
    event: Option<JsonString<'a>>,
    #[serde(borrow, default)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    room: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
}

/// A frame that is not JSON, or not an object with a string `event`. The connection counts these and closes after
/// several in a row.
#[derive(Debug)]
pub(super) struct MalformedFrame<'a> {
    message_id: Option<&'a str>,
}

impl<'a> MalformedFrame<'a> {
    /// A frame that does not have the fields as it should. An object may have an id all the same.
    fn of(text: Option<&'a str>, max_message_id: usize) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct IdField<'a> {
            #[serde(borrow, default)]
            message_id: Option<&'a RawValue>,
        }
        let field = text.and_then(|text| serde_json::from_str::<IdField<'_>>(text).ok());
        Self { message_id: field.and_then(|field| message_id(field.message_id, max_message_id).0) }
    }

    /// Returns the error for the client, with its message id if the frame has one.
    pub(super) fn reply(&self) -> Frame {
        let malformed = ActionError::of(ErrorKind::Malformed, "a frame is a JSON object with a string `event`");
        self.message_id.map_or_else(|| error_without_id(&malformed), |id| error(id, &malformed))
    }
}

/// Decodes a frame.
pub(super) fn decode(text: &str, max_message_id: usize) -> Result<DecodedFrame<'_>, MalformedFrame<'_>> {
    // A byte-order mark is no JSON, but RFC 8259, 8.1, lets a reader ignore it, and some writers put one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Objects only: serde would decode an array as the fields in their order.
    let object = Some(text).filter(|text| text.trim_ascii_start().starts_with('{'));
    let fields = object.and_then(|text| serde_json::from_str::<FrameFields<'_>>(text).ok());
    let Some((fields, event)) = fields.as_ref().and_then(|fields| Some((fields, fields.event.as_ref()?))) else {
        return Err(MalformedFrame::of(object, max_message_id));
    };
    let (message_id, id_error) = message_id(fields.message_id, max_message_id);
    let request = match id_error {
        Some(error) => ClientRequest::Invalid(error),
        None => request_of(&event.0, fields).unwrap_or_else(ClientRequest::Invalid),
    };
    Ok(DecodedFrame { message_id, request })
}

fn request_of<'a>(event: &str, fields: &FrameFields<'a>) -> Result<ClientRequest<'a>, ActionError> {
    if event == "action" {
        return action_request(fields.params);
    }
    let unknown = || {
        let shown: String = event.chars().take(64).collect();
        ActionError::not_found(format!("verb not found or not allowed ({shown})"))
    };
    let operation = match OperationKind::of_verb(event).ok_or_else(unknown)? {
        OperationKind::Say => {
            let (room, message) = both(field(fields.room, "room"), required(fields.message, "message"))?;
            check_room(&room)?;
            check_json(message.get()).map_err(|fault| fault.error("message"))?;
            Operation::Say(room, message.to_owned())
        }
        OperationKind::RoomAdd => Operation::RoomAdd(room(fields)?),
        OperationKind::RoomLeave => Operation::RoomLeave(room(fields)?),
        OperationKind::RoomView => Operation::RoomView(room(fields)?, after(fields)?),
        OperationKind::Details => Operation::Details,
        OperationKind::File => Operation::File(field(fields.file, "file").map_err(invalid)?),
        OperationKind::Quit => Operation::Quit,
        // Of remote callers alone: the table names no verb for them.
        OperationKind::Get | OperationKind::Set | OperationKind::SendMessage | OperationKind::Destroy => {
            return Err(unknown());
        }
    };
    Ok(ClientRequest::Verb(operation))
}

/// Decodes the params of `action`.
fn action_request(params: Option<&RawValue>) -> Result<ClientRequest<'_>, ActionError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ActionFields<'a> {
        #[serde(borrow, default)]
        action: Option<JsonString<'a>>,
        #[serde(default)]
        api_version: Option<Value>,
    }
    let unknown = phalanx_core::error::unknown_action;
    let params = params.ok_or_else(unknown)?;
    let (name, version) = match serde_json::from_str::<ActionFields<'_>>(params.get()) {
        Ok(fields) => (fields.action.map(|action| action.0), version_of(fields.api_version.as_ref())),
        // The name is no string, or a key is there twice, which is no error: the last value counts, as in an HTTP body.
        // serde_json's `Value` does that.
        Err(_) => {
            let fields: Value = serde_json::from_str(params.get()).map_err(|_| unknown())?;
            let name = fields.get("action").and_then(Value::as_str).map(|name| Cow::Owned(name.to_owned()));
            (name, version_of(fields.get("apiVersion")))
        }
    };
    let (name, version) = (name.ok_or_else(unknown)?, version?);
    Ok(ClientRequest::Action { name, version, params: Params::from_raw_json(params.to_owned())? })
}

/// Reads and checks the name of the room.
fn room(fields: &FrameFields<'_>) -> Result<String, ActionError> {
    let room = field(fields.room, "room").map_err(invalid)?;
    check_room(&room)?;
    Ok(room)
}

/// Reads the start of a page, which is the first without one.
fn after(fields: &FrameFields<'_>) -> Result<Option<MembersCursor>, ActionError> {
    let Some(after) = fields.after else { return Ok(None) };
    field(Some(after), "after").map_err(invalid)?.parse().map(Some)
}

/// Reads a string field.
fn field(raw: Option<&RawValue>, name: &'static str) -> Result<String, Detail> {
    let raw = required(raw, name)?;
    string_of(raw).map(Cow::into_owned).ok_or_else(|| Detail::new(name, "type", "must be a string"))
}

fn required<'a>(raw: Option<&'a RawValue>, name: &'static str) -> Result<&'a RawValue, Detail> {
    raw.ok_or_else(|| Detail::new(name, "required", "is required"))
}

fn invalid(detail: Detail) -> ActionError {
    ActionError::invalid_input(vec![detail])
}

/// Returns both values, or one error with the details of both.
fn both<A, B>(first: Result<A, Detail>, second: Result<B, Detail>) -> Result<(A, B), ActionError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => {
            let details = first.err().into_iter().chain(second.err()).collect();
            Err(ActionError::invalid_input(details))
        }
    }
}

/// Returns the string of a JSON text; `None` if it is another type.
fn string_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    if !quoted.starts_with('"') {
        return None;
    }
    if quoted.as_bytes().contains(&b'\\') {
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
    }
}

/// Reads the message id: the JSON of a string or a number, unchanged. Any other value is an error and is not echoed.
fn message_id(raw: Option<&RawValue>, max: usize) -> (Option<&str>, Option<ActionError>) {
    let Some(raw) = raw.map(RawValue::get) else { return (None, None) };
    let plain = matches!(raw.as_bytes(), [b'"' | b'-' | b'0'..=b'9', ..]);
    if raw == "null" {
        return (None, None);
    }
    if plain && raw.len() <= max + 2 {
        return match check_json(raw) {
            Ok(()) => (Some(raw), None),
            Err(fault) => (None, Some(fault.error("messageId"))),
        };
    }
    if plain {
        bound_reached("websocket.max_message_id_bytes");
    }
    let detail = Detail::new("messageId", "type", format!("must be a string or a number of at most {max} bytes"));
    (None, Some(ActionError::invalid_input(vec![detail])))
}

#[cfg(test)]
mod tests;

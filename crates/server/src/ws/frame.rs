//! Frames on the wire: what clients send, and what they are answered.
//!
//! One JSON value a frame. The dialect of Actionhero's old browser client would be another module beside this one: the
//! connection's task knows [`Asked`] and [`Answers`] alone.

mod encode;

use std::borrow::Cow;
use std::sync::Arc;

use phalanx_core::bound_reached;
use phalanx_core::connection::Frame;
use phalanx_core::params::{Params, version_of};
use phalanx_core::verb::Verb;
use phalanx_core::{ActionError, Detail, ErrorKind};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) use encode::{action_answer, error, error_without_id, verb_answer, welcome};

/// Most levels that a message may nest: a member's parser must not be harmed by another's message.
const MAX_DEPTH: usize = 100;

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

#[cfg(test)]
mod tests;

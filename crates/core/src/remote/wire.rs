//! Calls and replies as they go over the bus.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApplyError;
use crate::error::{ActionError, Detail, ErrorKind};
use crate::id::ConnectionId;
use crate::metrics::record_drop;

/// A call of a method on a connection, or on the node itself.
pub(super) struct CallMessage {
    pub(super) connection: Option<ConnectionId>,
    pub(super) method: String,
    pub(super) args: Value,
}

/// A call, borrowed to be encoded.
#[derive(Serialize)]
pub(super) struct CallRef<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) args: &'a Value,
}

#[derive(Deserialize)]
struct CallFields<'a> {
    #[serde(borrow)]
    connection: Option<Cow<'a, str>>,
    method: String,
    #[serde(default)]
    args: Value,
}

impl CallRef<'_> {
    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }
}

impl CallMessage {
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let call: CallFields<'_> = serde_json::from_slice(payload).ok()?;
        let connection = call.connection.map(|id| ConnectionId::parse(&id)).transpose().ok()?;
        Some(Self { connection, method: call.method, args: call.args })
    }
}

/// The result of a call, as it is encoded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplyMessage {
    Ok(Value),
    /// It is not a connection of this node, or no longer.
    NotMine,
    UnknownMethod,
    Late,
    Error(RemoteErrorFields),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoteErrorFields {
    kind: String,
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    details: Vec<RemoteDetailFields>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RemoteDetailFields {
    path: String,
    code: String,
    message: String,
}

impl ReplyMessage {
    pub(crate) fn from_result(result: Result<Value, ApplyError>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(ApplyError::NotFound) => Self::NotMine,
            Err(ApplyError::UnknownMethod) => Self::UnknownMethod,
            Err(ApplyError::Late) => Self::Late,
            // The other node could not reach a third one for the caller: to the caller that is an error like any other.
            Err(ApplyError::Unreachable) => Self::Error(to_fields(&ActionError::from(ApplyError::Unreachable))),
            Err(ApplyError::Refused(error)) => Self::Error(to_fields(&error)),
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }

    pub(crate) fn into_result(self) -> Result<Value, ApplyError> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::NotMine => Err(ApplyError::NotFound),
            Self::UnknownMethod => Err(ApplyError::UnknownMethod),
            Self::Late => Err(ApplyError::Late),
            Self::Error(error) => Err(ApplyError::Refused(from_fields(error))),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Decodes a reply; an unreadable one is counted.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let reply = serde_json::from_slice(payload).ok();
        if reply.is_none() {
            record_drop("answer_unreadable");
        }
        reply
    }
}

/// The public part of an error; the cause stays in the log of the node where it happened.
fn to_fields(error: &ActionError) -> RemoteErrorFields {
    let detail = |detail: &Detail| RemoteDetailFields {
        path: detail.path.clone(),
        code: detail.code.to_string(),
        message: detail.message.to_string(),
    };
    RemoteErrorFields {
        kind: error.kind().code().to_owned(),
        code: error.code().to_owned(),
        message: error.message().to_owned(),
        details: error.details().iter().map(detail).collect(),
        retry_after_ms: error.retry_after().map(|after| after.as_millis() as u64),
    }
}

fn from_fields(error: RemoteErrorFields) -> ActionError {
    // A kind that a later version has counts as internal.
    let kind = ErrorKind::ALL.into_iter().find(|kind| kind.code() == error.kind).unwrap_or(ErrorKind::Internal);
    let details = error.details.into_iter().map(|detail| Detail::new(detail.path, detail.code, detail.message));
    let decoded = ActionError::new(kind, error.code, error.message).with_details(details.collect());
    match error.retry_after_ms {
        Some(after) => decoded.with_retry_after(Duration::from_millis(after)),
        None => decoded,
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("names and JSON are always JSON").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_the_same_at_both_ends() {
        let details = vec![Detail::new("level", "type", "must be a number")];
        let error = ActionError::new(ErrorKind::Conflict, "taken", "it is taken")
            .with_details(details.clone())
            .with_retry_after(Duration::from_millis(1500));
        let sent = ReplyMessage::from_result(Err(ApplyError::Refused(error))).encode();
        let Err(ApplyError::Refused(read)) = ReplyMessage::decode(&sent).unwrap().into_result() else {
            panic!("refused")
        };
        assert_eq!((read.kind(), read.code(), read.message()), (ErrorKind::Conflict, "taken", "it is taken"));
        assert_eq!((read.details(), read.retry_after()), (&details[..], Some(Duration::from_millis(1500))));
    }

    #[test]
    fn a_call_is_the_same_at_both_ends() {
        let id = ConnectionId::parse("a-1").unwrap();
        let args = json!(["k", [u64::MAX, {}]]);
        let call = CallRef { connection: Some(id.as_str()), method: "set", args: &args };
        let read = CallMessage::decode(&call.encode()).unwrap();
        assert_eq!((read.connection, read.method, read.args), (Some(id), "set".into(), args));
        for rubbish in ["null", "[]", "{", r#"{"method":1}"#, r#"{"method":"set","connection":""}"#] {
            assert!(CallMessage::decode(rubbish.as_bytes()).is_none(), "{rubbish}");
        }
    }
}

//! Calls and answers as they go over the bus.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answering::dropped;
use crate::connection::ConnectionId;
use crate::connections::ApplyError;
use crate::error::{ActionError, Detail, ErrorKind};

/// A call of a method on a connection, or on the node itself.
pub(super) struct Call {
    pub(super) connection: Option<ConnectionId>,
    pub(super) method: String,
    pub(super) args: Value,
}

/// A call as it is written.
#[derive(Serialize)]
pub(super) struct Asking<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) args: &'a Value,
}

#[derive(Deserialize)]
struct CallOnWire<'a> {
    #[serde(borrow)]
    connection: Option<Cow<'a, str>>,
    method: String,
    #[serde(default)]
    args: Value,
}

impl Asking<'_> {
    pub(super) fn write(&self) -> Bytes {
        encode(self)
    }
}

impl Call {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let call: CallOnWire<'_> = serde_json::from_slice(payload).ok()?;
        let connection = call.connection.map(|id| ConnectionId::parse(&id)).transpose().ok()?;
        Some(Self { connection, method: call.method, args: call.args })
    }
}

/// What became of a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Ok(Value),
    /// It is not a connection of this node, or no longer.
    NotMine,
    UnknownMethod,
    Late,
    Error(ErrorOnWire),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorOnWire {
    kind: String,
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    details: Vec<DetailOnWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DetailOnWire {
    path: String,
    code: String,
    message: String,
}

impl Answer {
    pub(super) fn from_result(result: Result<Value, ApplyError>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(ApplyError::NotFound) => Self::NotMine,
            Err(ApplyError::UnknownMethod) => Self::UnknownMethod,
            Err(ApplyError::Late) => Self::Late,
            // The other node could not reach a third one for the caller: to the caller that is an error like any other.
            Err(ApplyError::Unreachable) => Self::Error(on_wire(&ActionError::from(ApplyError::Unreachable))),
            Err(ApplyError::Refused(error)) => Self::Error(on_wire(&error)),
        }
    }

    pub(super) fn into_result(self) -> Result<Value, ApplyError> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::NotMine => Err(ApplyError::NotFound),
            Self::UnknownMethod => Err(ApplyError::UnknownMethod),
            Self::Late => Err(ApplyError::Late),
            Self::Error(error) => Err(ApplyError::Refused(off_wire(error))),
        }
    }

    pub(super) fn write(&self) -> Bytes {
        encode(self)
    }

    /// Reads an answer; one that is none is counted.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let answer = serde_json::from_slice(payload).ok();
        if answer.is_none() {
            dropped("answer_unreadable");
        }
        answer
    }
}

/// What the caller's own client may see; the cause stays in the log of the node where it happened.
fn on_wire(error: &ActionError) -> ErrorOnWire {
    let detail = |detail: &Detail| DetailOnWire {
        path: detail.path.clone(),
        code: detail.code.to_string(),
        message: detail.message.to_string(),
    };
    ErrorOnWire {
        kind: error.kind().code().to_owned(),
        code: error.code().to_owned(),
        message: error.message().to_owned(),
        details: error.details().iter().map(detail).collect(),
        retry_after_ms: error.retry_after().map(|after| after.as_millis() as u64),
    }
}

fn off_wire(error: ErrorOnWire) -> ActionError {
    // A kind that a later version has counts as internal.
    let kind = ErrorKind::ALL.into_iter().find(|kind| kind.code() == error.kind).unwrap_or(ErrorKind::Internal);
    let details = error.details.into_iter().map(|detail| Detail::new(detail.path, detail.code, detail.message));
    let read = ActionError::new(kind, error.code, error.message).with_details(details.collect());
    match error.retry_after_ms {
        Some(after) => read.with_retry_after(Duration::from_millis(after)),
        None => read,
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
        let sent = Answer::from_result(Err(ApplyError::Refused(error))).write();
        let Err(ApplyError::Refused(read)) = Answer::read(&sent).unwrap().into_result() else { panic!("refused") };
        assert_eq!((read.kind(), read.code(), read.message()), (ErrorKind::Conflict, "taken", "it is taken"));
        assert_eq!((read.details(), read.retry_after()), (&details[..], Some(Duration::from_millis(1500))));
    }

    #[test]
    fn a_call_is_the_same_at_both_ends() {
        let id = ConnectionId::parse("a-1").unwrap();
        let args = json!(["k", [u64::MAX, {}]]);
        let call = Asking { connection: Some(id.as_str()), method: "set", args: &args };
        let read = Call::read(&call.write()).unwrap();
        assert_eq!((read.connection, read.method, read.args), (Some(id), "set".into(), args));
        for rubbish in ["null", "[]", "{", r#"{"method":1}"#, r#"{"method":"set","connection":""}"#] {
            assert!(Call::read(rubbish.as_bytes()).is_none(), "{rubbish}");
        }
    }
}

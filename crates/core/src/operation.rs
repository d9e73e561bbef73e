//! The built-in operations on a connection: one table for the verbs of its client and for remote callers.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::id::MembersCursor;
use crate::protocol::CloseReason;

/// A built-in operation with its arguments.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Returns the connection's details.
    Details,
    /// Returns an attribute.
    Get(String),
    /// Sets an attribute.
    Set(String, Value),
    /// Sends the client a message.
    SendMessage(Map<String, Value>),
    /// Sends a file under the public roots; a client gets it as the reply.
    File(String),
    /// Joins a room.
    RoomAdd(String),
    /// Leaves a room.
    RoomLeave(String),
    /// Returns a room and a page of its members.
    RoomView(String, Option<MembersCursor>),
    /// Publishes a message to a room.
    Say(String, Box<RawValue>),
    /// Closes the connection with a code of the application's.
    Destroy(CloseReason),
    /// Closes the connection at its client's request.
    Quit,
}

/// The operations without their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see the operations of the same names")]
pub enum OperationKind {
    Details,
    Get,
    Set,
    SendMessage,
    File,
    RoomAdd,
    RoomLeave,
    RoomView,
    Say,
    Destroy,
    Quit,
}

/// One row of [`OPERATIONS`].
#[derive(Clone, Copy, Debug)]
pub struct OperationNames {
    /// The operation.
    pub kind: OperationKind,
    /// The `event` by which a client requests it, if it may.
    pub verb: Option<&'static str>,
    /// The method by which `connections.apply` names it, if it can.
    pub method: Option<&'static str>,
}

const fn row(kind: OperationKind, verb: Option<&'static str>, method: Option<&'static str>) -> OperationNames {
    OperationNames { kind, verb, method }
}

/// Every built-in operation, with the names under which clients and remote callers reach it.
pub const OPERATIONS: [OperationNames; 12] = [
    row(OperationKind::Details, Some("detailsView"), Some("details")),
    row(OperationKind::Get, None, Some("get")),
    row(OperationKind::Set, None, Some("set")),
    row(OperationKind::SendMessage, None, Some("sendMessage")),
    row(OperationKind::File, Some("file"), Some("sendFile")),
    row(OperationKind::RoomAdd, Some("roomAdd"), Some("roomAdd")),
    row(OperationKind::RoomLeave, Some("roomLeave"), Some("roomLeave")),
    row(OperationKind::RoomView, Some("roomView"), None),
    row(OperationKind::Say, Some("say"), None),
    row(OperationKind::Destroy, None, Some("destroy")),
    row(OperationKind::Quit, Some("quit"), None),
    row(OperationKind::Quit, Some("exit"), None),
];

impl Operation {
    /// The `event` by which a client requests it, if it may.
    pub fn verb(&self) -> Option<&'static str> {
        OPERATIONS.iter().find(|row| row.kind == self.kind()).and_then(|row| row.verb)
    }

    fn kind(&self) -> OperationKind {
        match self {
            Self::Details => OperationKind::Details,
            Self::Get(_) => OperationKind::Get,
            Self::Set(..) => OperationKind::Set,
            Self::SendMessage(_) => OperationKind::SendMessage,
            Self::File(_) => OperationKind::File,
            Self::RoomAdd(_) => OperationKind::RoomAdd,
            Self::RoomLeave(_) => OperationKind::RoomLeave,
            Self::RoomView(..) => OperationKind::RoomView,
            Self::Say(..) => OperationKind::Say,
            Self::Destroy(_) => OperationKind::Destroy,
            Self::Quit => OperationKind::Quit,
        }
    }
}

impl OperationKind {
    /// The operation that a client names so.
    pub fn of_verb(verb: &str) -> Option<Self> {
        OPERATIONS.iter().find(|row| row.verb == Some(verb)).map(|row| row.kind)
    }

    /// The operation that a remote caller names so; no name at all means the details.
    pub fn of_method(method: &str) -> Option<Self> {
        let method = if method.is_empty() { "details" } else { method };
        OPERATIONS.iter().find(|row| row.method == Some(method)).map(|row| row.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_operation() {
        for (at, row) in OPERATIONS.iter().enumerate() {
            assert!(row.verb.is_some() || row.method.is_some());
            let others = || OPERATIONS.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, row)| row);
            assert!(row.verb.is_none() || others().all(|other| other.verb != row.verb));
            assert!(row.method.is_none() || others().all(|other| other.method != row.method));
        }
        assert_eq!(OperationKind::of_method(""), Some(OperationKind::Details));
        assert_eq!(OperationKind::of_method("say"), None);
        assert_eq!(OperationKind::of_verb("set"), None);
    }
}

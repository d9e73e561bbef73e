//! The messages of the link.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::PROTOCOL;

/// The first message of the parent: the worker's part in the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The version of the protocol: [`PROTOCOL`].
    pub protocol: u32,
    /// The version of the parent's program.
    pub version: String,
    /// The id of the worker's node.
    pub id: String,
    /// Its roles: `web`, `worker`, `scheduler`.
    pub roles: Vec<String>,
    /// The number of threads of its runtime, where its settings do not say another one.
    pub threads: usize,
    /// The names of the sockets, in their order: [`WEB`](Self::WEB), [`ADMIN`](Self::ADMIN).
    names: Vec<String>,
    #[serde(skip)]
    sockets: Vec<OwnedFd>,
}

impl Handover {
    /// The name of the socket for clients. It is bound, and the worker listens on it itself once it is ready:
    /// `listen` on a socket that listens already changes nothing. Until the first worker does, clients are refused.
    pub const WEB: &str = "web";
    /// The name of the socket of the worker's admin listener. It is bound, as that for clients.
    pub const ADMIN: &str = "admin";

    /// Makes a handover of this version of the protocol, without sockets.
    pub fn new(version: &str, id: &str, roles: &[String], threads: usize) -> Self {
        let (version, id, roles) = (version.to_owned(), id.to_owned(), roles.to_vec());
        Self { protocol: PROTOCOL, version, id, roles, threads, names: Vec::new(), sockets: Vec::new() }
    }

    /// Adds a socket.
    pub fn add(&mut self, name: &str, socket: OwnedFd) {
        self.names.push(name.to_owned());
        self.sockets.push(socket);
    }

    /// Takes the socket of that name.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.names.iter().position(|other| other == name)?;
        self.names.remove(index);
        Some(self.sockets.remove(index))
    }

    /// The names of the sockets that were not taken yet.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    pub(super) fn set_sockets(&mut self, sockets: Vec<OwnedFd>) {
        self.sockets = sockets;
    }
}

/// A message of the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message")]
pub enum WorkerMessage {
    /// It serves.
    Ready {
        /// The version of its program.
        version: String,
        /// The address for clients, if it has the role.
        web: Option<SocketAddr>,
        /// The address of its admin listener, if it has one.
        admin: Option<SocketAddr>,
    },
    /// It cannot serve, and ends.
    Failed {
        /// The reason, for an operator; at most [`MAX_TEXT`](Self::MAX_TEXT) bytes of it are sent.
        reason: String,
    },
    /// It has cut off work, and ends.
    Cut {
        /// The names of the work, for an operator; at most [`MAX_TEXT`](Self::MAX_TEXT) bytes of them are sent.
        work: String,
    },
    /// Its runtime runs. It is sent each second, by a task of the runtime, from `Ready` on.
    Beat {
        /// The number of connections of clients, those with sockets included.
        connections: u64,
        /// The number of WebSockets.
        sockets: u64,
    },
}

impl WorkerMessage {
    /// The most bytes of a text.
    pub const MAX_TEXT: usize = 2048;

    /// The message that it cannot serve.
    pub fn failed(reason: &str) -> Self {
        Self::Failed { reason: first_bytes(reason).to_owned() }
    }

    /// The message that it has cut off work.
    pub fn cut(work: &str) -> Self {
        Self::Cut { work: first_bytes(work).to_owned() }
    }
}

/// As much of a text as may be sent.
fn first_bytes(text: &str) -> &str {
    let end = (0..=text.len().min(WorkerMessage::MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// A message of the parent after the handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message")]
pub enum ParentMessage {
    /// Stop.
    Stop {
        /// Whether all others stop too, after which no process has the sockets. Otherwise others go on serving: the worker
        /// closes its copies at once, without `general.stop_delay`. If the service manager keeps the sockets, a worker
        /// gets the signal TERM instead.
        #[serde(default)]
        with_all: bool,
    },
    /// End now, and cut off what still runs.
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let WorkerMessage::Failed { reason } = WorkerMessage::failed(&"ä\u{10ffff}".repeat(1000)) else {
            unreachable!()
        };
        assert_eq!(reason.len(), 2048);
        let WorkerMessage::Failed { reason } = WorkerMessage::failed(&format!("a{}", "ä".repeat(2000))) else {
            unreachable!()
        };
        assert_eq!(reason.len(), 2047);
        assert_eq!(WorkerMessage::failed("short"), WorkerMessage::Failed { reason: "short".to_owned() });
    }

    /// Programs before it said nothing else, and go on after a deploy that is taken back.
    #[test]
    fn a_stop_without_its_extent_is_one_beside_others() {
        let stop = serde_json::from_str::<ParentMessage>(r#"{"message":"stop"}"#).unwrap();
        assert_eq!(stop, ParentMessage::Stop { with_all: false });
        assert_eq!(
            serde_json::to_string(&ParentMessage::Stop { with_all: true }).unwrap(),
            r#"{"message":"stop","with_all":true}"#
        );
    }

    #[test]
    fn sockets_are_taken_by_name() {
        let mut handover = Handover::new("1.0.0", "a", &[], 1);
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        handover.add(Handover::WEB, one.into());
        handover.add(Handover::ADMIN, other.into());
        assert!(handover.take("none").is_none());
        assert!(handover.take(Handover::WEB).is_some());
        assert!(handover.take(Handover::WEB).is_none());
        assert_eq!(handover.names(), ["admin"]);
    }
}

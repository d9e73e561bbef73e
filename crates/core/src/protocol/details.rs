//! A connection, as its client and callers from anywhere see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// A connection: the reply to `detailsView`, and to a remote call without a method.
///
/// A remote caller sees the attributes too, beside these fields; a client does not, for they are the application's own
/// notes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionDetails<'a> {
    /// The transport; for remote callers.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub transport: Option<&'static str>,
    /// The connection's id.
    pub id: &'a str,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: &'a str,
    /// The client's address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// The client's port.
    pub remote_port: u16,
    /// Always empty; clients of Actionhero read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<&'static str, Value>>,
    /// Unix time in milliseconds.
    pub connected_at: u64,
    /// The rooms it is in.
    #[serde(serialize_with = "names")]
    pub rooms: Vec<Arc<str>>,
    /// How many actions it ever called.
    pub total_actions: u64,
    /// How many of its actions run now.
    pub pending_actions: u32,
    /// Whether it is closing; for remote callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<bool>,
}

fn names<S: Serializer>(rooms: &[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rooms.iter().map(|room| &**room))
}

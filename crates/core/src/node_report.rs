//! Reports of nodes to operators, by built-in remote methods that every node has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use validator::Validate;

use crate::cluster::{Cluster, NodeReplies};
use crate::connection::Connection;
use crate::error::ActionError;
use crate::params::NoInput;
use crate::remote_method::{RemoteDef, run_of_node};

/// A node, as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeReport {
    /// The addresses that it listens on, by the names of its transports: `web`, `admin`.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// Its process id.
    pub pid: u32,
    /// How long it runs.
    pub uptime_ms: u64,
    /// How many connections it has.
    pub connections: usize,
    /// Why it is not ready; empty if it is.
    pub problems: Vec<String>,
}

/// Connections of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConnectionList {
    /// How many there are.
    pub count: usize,
    /// Those that have been open for longest, at most [`ConnectionList::MAX`].
    pub listed: Vec<ListedConnection>,
}

impl ConnectionList {
    /// Most connections of a list: its 200 KB are within the smallest `cluster.max_call` that is of use.
    pub const MAX: usize = 1000;
}

/// A connection in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ListedConnection {
    /// Its id.
    pub id: String,
    /// The address of its client.
    pub remote: SocketAddr,
    /// When it was opened, Unix time in milliseconds.
    pub connected_at: u64,
    /// The number of its rooms.
    pub rooms: usize,
    /// How many of its actions run now.
    pub pending_actions: u32,
}

#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct ConnectionsRequest {
    max: usize,
    /// Without it those of all rooms and of none.
    room: Option<String>,
}

/// Describes the node.
pub(crate) const REPORT: RemoteDef =
    RemoteDef::of_node::<NoInput, Value>("phalanx:report", "Describes the node to operators.", |ctx, body| {
        run_of_node(ctx, body, |ctx, NoInput {}| {
            let node = ctx.node();
            NodeReport {
                addresses: ctx.addresses(),
                pid: std::process::id(),
                uptime_ms: node.uptime().as_millis() as u64,
                connections: node.connections().count(),
                problems: node.health(),
            }
        })
    });

/// Lists connections of the node.
pub(crate) const CONNECTIONS: RemoteDef = RemoteDef::of_node::<ConnectionsRequest, Value>(
    "phalanx:connections",
    "Lists connections of the node for operators.",
    |ctx, body| run_of_node(ctx, body, |ctx, request| connections(ctx.node().connections().all(), &request)),
);

fn connections(mut all: Vec<Connection>, request: &ConnectionsRequest) -> ConnectionList {
    if let Some(room) = &request.room {
        all.retain(|connection| connection.is_in(room));
    }
    let (count, max) = (all.len(), request.max.min(ConnectionList::MAX));
    let by_age = |one: &Connection, other: &Connection| {
        one.connected_at().cmp(&other.connected_at()).then_with(|| one.id().cmp(other.id()))
    };
    if count > max {
        all.select_nth_unstable_by(max, by_age); // a node may have very many
        all.truncate(max);
    }
    all.sort_unstable_by(by_age);
    let listed = all.iter().map(|connection| ListedConnection {
        id: connection.id().to_string(),
        remote: connection.remote(),
        connected_at: connection.connected_at(),
        rooms: connection.joined_rooms().names().count(),
        pending_actions: connection.pending_actions(),
    });
    ConnectionList { count, listed: listed.collect() }
}

impl Cluster {
    /// How each node describes itself. Nodes of a release that cannot have an error,
    /// [`UnknownMethod`](crate::ApplyError::UnknownMethod).
    ///
    /// # Errors
    ///
    /// `unavailable` if the nodes cannot be read, or `cluster.max_calls` calls are pending.
    pub async fn reports(&self, limit: Duration) -> Result<NodeReplies<NodeReport>, ActionError> {
        Ok(self.call_nodes(REPORT.name, json!({}), limit).await?.decoded())
    }

    /// Connections of all nodes, or of those with that id (or `<id>@<boot>`), or of a room: of each node the `max` that have
    /// been open for longest, at most [`ConnectionList::MAX`].
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such node; otherwise those of [`Cluster::reports`].
    pub async fn connections(
        &self,
        node: Option<&str>,
        room: Option<&str>,
        max: usize,
        limit: Duration,
    ) -> Result<NodeReplies<ConnectionList>, ActionError> {
        let input = json!({ "max": max, "room": room });
        Ok(self.call_nodes_of(node, CONNECTIONS.name, input, limit).await?.decoded())
    }
}

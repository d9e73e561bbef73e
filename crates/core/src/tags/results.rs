//! The results of calls of all connections with a tag.

use serde_json::Value;

use crate::id::ConnectionId;
use crate::remote::error::ApplyError;

/// How many connections have a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagCount {
    /// The connections of the nodes that answered.
    pub count: usize,
    /// If nodes that received the call did not reply in time: those of the cluster without a reply, which may have such
    /// connections or not. Named as in [`NodeReplies`](crate::NodeReplies). A node that is cut off from Redis at that moment
    /// received nothing: it is not among them, and its connections are as they were.
    pub missing: Vec<String>,
}

/// The connections with a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagList {
    /// Their ids, at most [`TaggedConnections::LISTED`](crate::TaggedConnections::LISTED) of them.
    pub ids: Vec<ConnectionId>,
    /// How many there are.
    pub count: usize,
    /// As in [`TagCount::missing`].
    pub missing: Vec<String>,
}

/// The results of a method on all connections with a tag.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct TagResults {
    /// How many connections it was called on.
    pub count: usize,
    /// On how many of them it has returned an error, or not returned in time.
    pub failed: usize,
    /// The first results, at most [`TaggedConnections::RESULTS`](crate::TaggedConnections::RESULTS) of them and as many as
    /// `cluster.max_call` has bytes for.
    pub results: Vec<(ConnectionId, Result<Value, ApplyError>)>,
    /// As in [`TagCount::missing`].
    pub missing: Vec<String>,
}

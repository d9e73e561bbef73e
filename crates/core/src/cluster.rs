//! The cluster as an application sees it: its nodes, calls to them, and messages between them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Membership, NodeRecord};
use crate::error::{ActionError, ErrorKind};
use crate::remote::{ApplyError, LONGEST, RemoteCalls};
use crate::topics::{TopicSubscription, Topics};

/// The nodes that run the application together. Cheap to clone.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::{Engine, NodeSetup};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// let nodes = engine.node().cluster().nodes().await?;
/// assert_eq!(nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["node"]);
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster {
    membership: Arc<dyn Membership>,
    calls: Arc<RemoteCalls>,
    topics: Topics,
}

/// The replies of all nodes to one call.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeReplies<T> {
    /// By node id; where several nodes have one id, by `<id>@<first generation since its start>`.
    pub replies: BTreeMap<String, Result<T, ApplyError>>,
    /// The nodes that did not reply in time, named in the same way.
    pub missing: Vec<String>,
}

impl NodeReplies<Value> {
    /// The replies as values of a type; one that is not becomes an error of its node.
    pub(crate) fn decoded<T: DeserializeOwned>(self) -> NodeReplies<T> {
        let replies = self.replies.into_iter().map(|(node, reply)| (node, reply.and_then(decode)));
        NodeReplies { replies: replies.collect(), missing: self.missing }
    }
}

/// The value of a reply.
pub(crate) fn decode<T: DeserializeOwned>(reply: Value) -> Result<T, ApplyError> {
    serde_json::from_value(reply).map_err(|error| ActionError::internal(error).into())
}

impl Cluster {
    pub(crate) fn new(membership: Arc<dyn Membership>, calls: Arc<RemoteCalls>, topics: Topics) -> Self {
        Self { membership, calls, topics }
    }

    /// The nodes of the cluster, this one too, by id. One that died is among them until it is reaped.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, ActionError> {
        let mut nodes = self.membership.nodes().await?;
        nodes.sort_by(|a, b| (&a.id, a.generation).cmp(&(&b.id, b.generation)));
        Ok(nodes)
    }

    /// Runs a method on the node with that id; of several, on the one that has run for longest.
    pub(crate) async fn call_node(&self, node: &str, method: &str, input: Value) -> Result<Value, ApplyError> {
        let nodes = self.nodes().await?;
        let found = nodes.iter().filter(|record| record.id == node).min_by_key(|record| record.started_at);
        let generation = found.ok_or(ApplyError::NotFound)?.generation;
        self.calls.call_node(generation, None, method, input, None).await
    }

    /// Runs a method on every node at once.
    pub(crate) async fn call_nodes(
        &self,
        method: &str,
        input: Value,
        limit: Duration,
    ) -> Result<NodeReplies<Value>, ActionError> {
        self.call_nodes_of(None, method, input, limit).await
    }

    /// Runs a method at once on every node, or on those with this id or name.
    pub(crate) async fn call_nodes_of(
        &self,
        wanted: Option<&str>,
        method: &str,
        input: Value,
        limit: Duration,
    ) -> Result<NodeReplies<Value>, ActionError> {
        let deadline = Instant::now() + limit.min(LONGEST);
        let unknown = || ActionError::of(ErrorKind::Unavailable, "which nodes there are was not learnt in time");
        let nodes = timeout_at(deadline, self.nodes()).await.map_err(|_| unknown())??;
        let named = nodes.iter().cloned().zip(NodeRecord::names(&nodes));
        let (nodes, names): (Vec<NodeRecord>, Vec<String>) =
            named.filter(|(record, name)| wanted.is_none_or(|wanted| record.id == wanted || name == wanted)).unzip();
        if let Some(wanted) = wanted.filter(|_| nodes.is_empty()) {
            return Err(ActionError::of(ErrorKind::NotFound, format!("the cluster has no node {wanted}")));
        }
        let mut received = self.calls.call_all(&nodes, None, method, input, deadline).await?;
        let mut all = NodeReplies { replies: BTreeMap::new(), missing: Vec::new() };
        for (record, name) in nodes.iter().zip(names) {
            match received.by_node.remove(&record.generation) {
                Some(result) => drop(all.replies.insert(name, result)),
                None => all.missing.push(name),
            }
        }
        Ok(all)
    }

    /// Publishes to every node that is subscribed to `topic`: see [`Topics::publish`].
    ///
    /// # Errors
    ///
    /// Those of [`Topics::publish`].
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), ActionError> {
        self.topics.publish(topic, message).await
    }

    /// Subscribes to a topic: see [`Topics::subscribe`].
    ///
    /// # Errors
    ///
    /// Those of [`Topics::subscribe`].
    pub fn subscribe(&self, topic: &str) -> Result<TopicSubscription, ActionError> {
        self.topics.subscribe(topic)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

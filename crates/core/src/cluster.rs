//! The cluster as an application sees it: who is there, calls to nodes, and messages between them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use crate::backend::{Letter, LetterKind, NodeRecord, Recipient};
use crate::connections::ApplyError;
use crate::error::{ActionError, Detail};
use crate::node::Node;
use crate::rpc::Remote;

/// The nodes that run the application together.
#[derive(Clone, Debug)]
pub struct Cluster {
    node: Node,
}

/// What all nodes answered.
#[derive(Debug)]
pub struct Answers<T> {
    /// By node id.
    pub answers: BTreeMap<String, Result<T, ApplyError>>,
    /// The ids of those that did not answer in time.
    pub missing: Vec<String>,
}

impl Cluster {
    /// Messages that a listener may be behind before it misses some.
    pub const LISTENER_QUEUE: usize = 1024;

    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    /// The nodes of the cluster, this one too, by id. One that died is among them until it is cleaned up after.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, ActionError> {
        let mut nodes = self.node.membership().nodes().await?;
        nodes.sort_by(|a, b| (&a.id, a.generation).cmp(&(&b.id, b.generation)));
        Ok(nodes)
    }

    /// Runs a remote method on the node with that id. It runs without a connection.
    ///
    /// # Errors
    ///
    /// [`ApplyError::NotFound`] if there is no such node; otherwise those of [`crate::Connections::apply`].
    pub async fn call<R>(&self, node: &str, input: R::Input) -> Result<R::Output, ApplyError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let nodes = self.nodes().await?;
        let found = nodes.iter().filter(|record| record.id == node).max_by_key(|record| record.started_at);
        let there = found.ok_or(ApplyError::NotFound)?.generation;
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        let answer = self.node.calls().to_node(&self.node, there, None, R::DEF.name, input, None).await?;
        serde_json::from_value(answer).map_err(|error| ActionError::internal(error).into())
    }

    /// Runs a remote method on every node at once, without a connection. Never fails as a whole: who does not answer
    /// within `limit` is named.
    ///
    /// # Errors
    ///
    /// `unavailable` if it cannot be learnt which nodes there are.
    pub async fn call_all<R>(&self, input: R::Input, limit: Duration) -> Result<Answers<R::Output>, ActionError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let nodes = self.nodes().await?;
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        let mut heard = self.node.calls().to_all(&self.node, &nodes, None, R::DEF.name, input, limit).await?;
        let mut all = Answers { answers: BTreeMap::new(), missing: Vec::new() };
        for record in nodes {
            match heard.remove(&record.generation) {
                Some(answer) => {
                    let read = |value: Value| serde_json::from_value(value).map_err(ActionError::internal);
                    all.answers.insert(record.id, answer.and_then(|value| Ok(read(value)?)));
                }
                None => all.missing.push(record.id),
            }
        }
        Ok(all)
    }

    /// Tells every node that listens for `topic`, this one too. Nobody need listen.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a topic that is no name, `unavailable` if it is unknown whether it was published.
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), ActionError> {
        check_topic(topic)?;
        let told = Told {
            topic: topic.into(),
            message: serde_json::value::to_raw_value(message).map_err(ActionError::internal)?,
        };
        let payload = serde_json::to_vec(&told).map_err(ActionError::internal)?;
        let letter = Letter { kind: LetterKind::Event, id: 0, deadline_ms: None, payload: payload.into() };
        self.node.bus().post(Recipient::Everyone, letter).await?;
        Ok(())
    }

    /// Listens for what nodes publish under `topic` from now on.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a topic that is no name.
    pub fn subscribe(&self, topic: &str) -> Result<Listener, ActionError> {
        check_topic(topic)?;
        Ok(Listener(self.node.topics().listen(topic)))
    }
}

/// What comes in under one topic. Dropped, it listens no more.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Bytes>);

impl Listener {
    /// Waits for the next message; `None` when the node stops. Cancel safe.
    ///
    /// # Errors
    ///
    /// `unavailable` if it was too slow and missed some, `internal` if a message has another shape.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, ActionError>> {
        match self.0.recv().await {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(ActionError::internal)),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let message = "the listener was too slow and missed messages";
                Some(Err(ActionError::of(crate::ErrorKind::Unavailable, message)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Who listens on this node, by topic.
#[derive(Debug, Default)]
pub(crate) struct Topics(std::sync::Mutex<BTreeMap<String, broadcast::Sender<Bytes>>>);

impl Topics {
    fn listen(&self, topic: &str) -> broadcast::Receiver<Bytes> {
        let mut topics = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.retain(|_, sender| sender.receiver_count() > 0);
        let sender = topics.entry(topic.to_owned()).or_insert_with(|| broadcast::Sender::new(Cluster::LISTENER_QUEUE));
        sender.subscribe()
    }

    /// Hands a message on; one that is none is dropped.
    pub(crate) fn tell(&self, payload: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Told>(payload) else { return };
        let topics = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sender) = topics.get(&*told.topic) {
            // Without a listener there is nobody to tell.
            let _ = sender.send(Bytes::copy_from_slice(told.message.get().as_bytes()));
        }
    }
}

#[derive(Serialize, serde::Deserialize)]
struct Told {
    topic: Box<str>,
    message: Box<RawValue>,
}

fn check_topic(topic: &str) -> Result<(), ActionError> {
    if (1..=100).contains(&topic.len()) && topic.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let detail = Detail::new("topic", "pattern", "must be 1 to 100 printable ASCII characters");
    Err(ActionError::invalid_input(vec![detail]))
}

//! The cluster as an application sees it: who is there, calls to nodes, and messages between them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Letter, LetterKind, NodeRecord, Recipient};
use crate::calls::{LONGEST, check_size};
use crate::connections::ApplyError;
use crate::error::{ActionError, Detail, ErrorKind};
use crate::metrics::bound_reached;
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

    /// Topics that this node listens for at most.
    pub const MOST_TOPICS: usize = 1024;

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

    /// Runs a remote method on every node at once, without a connection. Whatever becomes of the call, it does not fail as
    /// a whole: who does not answer within `limit`, at most an hour, is named.
    ///
    /// # Errors
    ///
    /// Only before anybody is asked: `unavailable` if it cannot be learnt which nodes there are, or `cluster.max_calls` are
    /// waited for; `payload_too_large` if the input is larger than `cluster.max_call`.
    pub async fn call_all<R>(&self, input: R::Input, limit: Duration) -> Result<Answers<R::Output>, ActionError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let deadline = Instant::now() + limit.min(LONGEST);
        let unknown = || ActionError::of(ErrorKind::Unavailable, "which nodes there are was not learnt in time");
        let nodes = timeout_at(deadline, self.nodes()).await.map_err(|_| unknown())??;
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        let mut heard = self.node.calls().to_all(&self.node, &nodes, None, R::DEF.name, input, deadline).await?;
        let mut all = Answers { answers: BTreeMap::new(), missing: Vec::new() };
        for record in nodes {
            match heard.answers.remove(&record.generation) {
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
    /// `invalid_input` for a topic that is no name, `payload_too_large` beyond `cluster.max_call`, `unavailable` if it is
    /// unknown whether it was published.
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), ActionError> {
        check_topic(topic)?;
        let told = Told {
            topic: topic.into(),
            message: serde_json::value::to_raw_value(message).map_err(ActionError::internal)?,
        };
        let payload = serde_json::to_vec(&told).map_err(ActionError::internal)?;
        check_size(&self.node, &payload, "the message is too large for the cluster")?;
        let letter = Letter { kind: LetterKind::Event, id: 0, deadline_ms: None, payload: payload.into() };
        self.node.bus().post(Recipient::Everyone, letter).await?;
        Ok(())
    }

    /// Listens for what nodes publish under `topic` from now on.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a topic that is no name, `unavailable` beyond [`Cluster::MOST_TOPICS`].
    pub fn subscribe(&self, topic: &str) -> Result<Listener, ActionError> {
        check_topic(topic)?;
        self.node.topics().listen(topic).map(Listener)
    }
}

/// What comes in under one topic. Dropped, it listens no more.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Option<Bytes>>);

impl Listener {
    /// Waits for the next message; `None` when the node stops. Cancel safe.
    ///
    /// # Errors
    ///
    /// `unavailable` if it missed some, because it was too slow or the bus was away; `internal` if a message has another
    /// shape.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, ActionError>> {
        match self.0.recv().await {
            Ok(Some(bytes)) => Some(serde_json::from_slice(&bytes).map_err(ActionError::internal)),
            Ok(None) => {
                Some(Err(ActionError::of(ErrorKind::Unavailable, "messages of other nodes may have been missed")))
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                bound_reached("cluster.listener_queue");
                let message = "the listener was too slow and missed messages";
                Some(Err(ActionError::of(ErrorKind::Unavailable, message)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Who listens on this node.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Listened>);

#[derive(Debug, Default)]
struct Listened {
    /// By topic; they are told a message, or `None` where some may have been missed.
    senders: BTreeMap<String, broadcast::Sender<Option<Bytes>>>,
    closed: bool,
}

impl Topics {
    fn listen(&self, topic: &str) -> Result<broadcast::Receiver<Option<Bytes>>, ActionError> {
        let mut listened = self.listened();
        if listened.closed {
            return Ok(broadcast::channel(1).1); // whose other end is gone
        }
        listened.senders.retain(|_, sender| sender.receiver_count() > 0);
        if listened.senders.len() >= Cluster::MOST_TOPICS && !listened.senders.contains_key(topic) {
            bound_reached("cluster.topics");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node listens for as many topics as it may"));
        }
        let fresh = || broadcast::Sender::new(Cluster::LISTENER_QUEUE);
        Ok(listened.senders.entry(topic.to_owned()).or_insert_with(fresh).subscribe())
    }

    /// Hands a message on; one that is none is dropped.
    pub(crate) fn tell(&self, payload: &[u8]) {
        if self.listened().senders.is_empty() {
            return;
        }
        let Ok(told) = serde_json::from_slice::<Told>(payload) else { return };
        if let Some(sender) = self.listened().senders.get(&*told.topic) {
            // Without a listener there is nobody to tell.
            let _ = sender.send(Some(Bytes::copy_from_slice(told.message.get().as_bytes())));
        }
    }

    /// Tells all who listen that messages may have been missed.
    pub(crate) fn gap(&self) {
        for sender in self.listened().senders.values() {
            let _ = sender.send(None);
        }
    }

    /// Ends all listeners, once they have heard what came before.
    pub(crate) fn close(&self) {
        let mut listened = self.listened();
        listened.closed = true;
        listened.senders.clear();
    }

    fn listened(&self) -> MutexGuard<'_, Listened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

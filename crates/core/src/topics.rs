//! An application's own messages between nodes, by topic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use crate::backend::{Bus, NodeMessage, NodeMessageKind, Recipient};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::metrics::bound_reached;

/// Publishes to topics, and subscribes to them. Cheap to clone.
///
/// A message reaches the nodes that are subscribed when it arrives; nothing is stored for later.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::{Engine, NodeSetup};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// let topics = engine.node().topics();
/// let mut prices = topics.subscribe("prices")?;
/// topics.publish("prices", &("tea", 4)).await?;
/// let (name, price): (String, u32) = prices.next().await.expect("the node runs")?;
/// assert_eq!((name.as_str(), price), ("tea", 4));
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Topics(Arc<TopicsInner>);

struct TopicsInner {
    bus: Arc<dyn Bus>,
    max_bytes: u64,
    table: Mutex<TopicTable>,
}

#[derive(Debug, Default)]
struct TopicTable {
    /// By topic; subscribers get a message, or `None` where some may have been missed.
    senders: BTreeMap<String, broadcast::Sender<Option<Bytes>>>,
    closed: bool,
}

#[derive(Serialize, Deserialize)]
struct TopicMessage {
    topic: Box<str>,
    message: Box<RawValue>,
}

impl Topics {
    /// Messages that a subscriber may be behind before it misses some.
    pub const QUEUE: usize = 1024;

    /// Most topics that this node is subscribed to.
    pub const MAX_TOPICS: usize = 1024;

    pub(crate) fn new(bus: Arc<dyn Bus>, max_bytes: u64) -> Self {
        Self(Arc::new(TopicsInner { bus, max_bytes, table: Mutex::default() }))
    }

    /// Publishes to every node that is subscribed to `topic`, this one too. Cancel safe: a dropped call has either
    /// published the message or has not.
    ///
    /// # Errors
    ///
    /// `invalid_input` for an invalid topic, `payload_too_large` beyond `cluster.max_call`, `unavailable` if it is unknown
    /// whether the message was published.
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, message: &T) -> Result<(), ActionError> {
        check_topic(topic)?;
        let message = TopicMessage {
            topic: topic.into(),
            message: serde_json::value::to_raw_value(message).map_err(ActionError::internal)?,
        };
        let payload = serde_json::to_vec(&message).map_err(ActionError::internal)?;
        if payload.len() as u64 > self.0.max_bytes {
            bound_reached("cluster.max_call");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the message is too large for the cluster"));
        }
        let message = NodeMessage { kind: NodeMessageKind::Topic, id: 0, deadline_ms: None, payload: payload.into() };
        self.0.bus.post(Recipient::Everyone, message).await?;
        Ok(())
    }

    /// Subscribes to a topic: receives the messages that arrive from now on.
    ///
    /// # Errors
    ///
    /// `invalid_input` for an invalid topic, `unavailable` beyond [`Topics::MAX_TOPICS`].
    pub fn subscribe(&self, topic: &str) -> Result<TopicSubscription, ActionError> {
        check_topic(topic)?;
        let mut table = self.table();
        if table.closed {
            return Ok(TopicSubscription(broadcast::channel(1).1)); // its sender is dropped: it ends at once
        }
        table.senders.retain(|_, sender| sender.receiver_count() > 0);
        if table.senders.len() >= Self::MAX_TOPICS && !table.senders.contains_key(topic) {
            bound_reached("cluster.topics");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node listens for as many topics as it may"));
        }
        let new = || broadcast::Sender::new(Self::QUEUE);
        Ok(TopicSubscription(table.senders.entry(topic.to_owned()).or_insert_with(new).subscribe()))
    }

    /// Hands a message to its subscribers; an unreadable one is dropped.
    pub(crate) fn deliver(&self, payload: &[u8]) {
        if self.table().senders.is_empty() {
            return;
        }
        let Ok(message) = serde_json::from_slice::<TopicMessage>(payload) else { return };
        if let Some(sender) = self.table().senders.get(&*message.topic) {
            // An error means that the last subscriber has gone.
            let _ = sender.send(Some(Bytes::copy_from_slice(message.message.get().as_bytes())));
        }
    }

    /// Notifies all subscribers that messages may have been missed.
    pub(crate) fn send_gaps(&self) {
        for sender in self.table().senders.values() {
            let _ = sender.send(None);
        }
    }

    /// Ends all subscriptions, after the messages that arrived before.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        table.senders.clear();
    }

    fn table(&self) -> MutexGuard<'_, TopicTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table().senders.keys()).finish()
    }
}

/// A subscription to one topic; ends when it is dropped.
#[derive(Debug)]
pub struct TopicSubscription(broadcast::Receiver<Option<Bytes>>);

impl TopicSubscription {
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

fn check_topic(topic: &str) -> Result<(), ActionError> {
    if (1..=100).contains(&topic.len()) && topic.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let detail = Detail::new("topic", "pattern", "must be 1 to 100 printable ASCII characters");
    Err(ActionError::invalid_input(vec![detail]))
}

//! The bus of one node: a bounded queue. Publishers wait while it is full.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::backend::{
    BackendError, Bus, Incoming, NodeMessage, Posted, Publication, Recipient, SendGuard, Subscription, TagMessage,
};
use crate::future::BoxFuture;
use crate::id::{Generation, TagId};

/// The bus of one node. All rooms share one queue, so they share one order.
#[derive(Debug)]
pub struct MemoryBus {
    sender: mpsc::Sender<Incoming>,
    receiver: Mutex<Option<mpsc::Receiver<Incoming>>>,
    own_generation: Mutex<Option<Generation>>,
    tags: Arc<SubscribedTags>,
}

/// The number of subscriptions to each tag.
#[derive(Debug, Default)]
struct SubscribedTags(Mutex<HashMap<TagId, usize>>);

impl SubscribedTags {
    fn counts(&self) -> MutexGuard<'_, HashMap<TagId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One subscription to a tag.
struct TagGuard(Arc<SubscribedTags>, TagId);

impl Drop for TagGuard {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

impl MemoryBus {
    /// Makes a bus with room for `queue` messages; beyond, publishers wait.
    pub fn new(queue: usize) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        Self { sender, receiver: Mutex::new(Some(receiver)), own_generation: Mutex::default(), tags: Arc::default() }
    }

    fn own_generation(&self) -> Option<Generation> {
        *self.own_generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, incoming: Incoming) -> Result<(), BackendError> {
        self.sender.send(incoming).await.map_err(|_| BackendError::unavailable("the bus is closed"))
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn open_inbox(&self, generation: Generation) -> Result<(), BackendError> {
        *self.own_generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
        Ok(())
    }

    async fn publish(&self, message: Publication) -> Result<(), BackendError> {
        self.send(Incoming::Publication(message)).await
    }

    async fn post(&self, to: Recipient, message: NodeMessage) -> Result<Posted, BackendError> {
        match (to, self.own_generation()) {
            (Recipient::Node(other), Some(own)) if other != own => Ok(Posted { received: false, on_record: false }),
            (_, Some(own)) => {
                self.send(Incoming::NodeMessage(own, message)).await?;
                Ok(Posted { received: true, on_record: true })
            }
            (_, None) => Err(BackendError::unavailable("the node has no name yet")),
        }
    }

    fn try_post(&self, _to: Recipient, message: NodeMessage, guard: SendGuard) -> Result<(), (NodeMessage, SendGuard)> {
        Err((message, guard))
    }

    async fn subscribe(&self, _room: &Arc<str>) -> Result<Subscription, BackendError> {
        Ok(Subscription::none())
    }

    async fn publish_to_tag(&self, message: TagMessage) -> Result<usize, BackendError> {
        if !self.tags.counts().contains_key(&message.tag) {
            return Ok(0);
        }
        let own = self.own_generation().ok_or_else(|| BackendError::unavailable("the node has no name yet"))?;
        self.send(Incoming::TagMessage(own, message)).await?;
        Ok(1)
    }

    fn subscribe_to_tag(&self, tag: TagId) -> (Subscription, BoxFuture<'static, Result<(), BackendError>>) {
        *self.tags.counts().entry(tag).or_default() += 1;
        (Subscription::new(TagGuard(self.tags.clone(), tag)), Box::pin(ready(Ok(()))))
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Incoming>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

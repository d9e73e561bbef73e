//! The bus of one node: a bounded queue that publishers wait for.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::backend::{BackendError, Bus, Message};

/// The bus of one node. One queue gives one order to all rooms.
#[derive(Debug)]
pub struct MemoryBus {
    sender: mpsc::Sender<Message>,
    receiver: Mutex<Option<mpsc::Receiver<Message>>>,
}

impl MemoryBus {
    /// Makes a bus that holds at most `queue` messages; beyond, publishers wait.
    pub fn new(queue: usize) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, message: Message) -> Result<(), BackendError> {
        self.sender.send(message).await.map_err(|_| BackendError::unavailable("the bus is closed"))
    }

    async fn subscribe(&self, _room: &Arc<str>) -> Result<(), BackendError> {
        Ok(())
    }

    async fn unsubscribe(&self, _room: &Arc<str>) {}

    fn receiver(&self) -> Option<mpsc::Receiver<Message>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

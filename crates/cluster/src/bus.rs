//! The bus over Redis's publish and subscribe.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phalanx_core::Generation;
use phalanx_core::backend::{Arrival, BackendError, Bus, Letter, LetterKind, Message, Posted, Recipient, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::clock::RedisClock;
use crate::envelope::{Draft, Opener, Sealer};
use crate::keys::Keys;
use crate::own_name::OwnName;
use crate::publisher::{Publisher, Writer};
use crate::subscriber::{Hold, Subscriber};

/// Names of its own that a node goes on listening to.
const INBOXES: usize = 17;

/// What a node needs to take part.
#[derive(Clone)]
pub struct BusSettings {
    /// The node's id, for people and logs.
    pub node: String,
    /// What only nodes know.
    pub token: String,
    /// What it was before; empty if it was nothing else.
    pub previous_token: String,
    /// Messages that may wait on this node; beyond, they are dropped, counted, and the gap is told.
    pub queue: usize,
}

/// The bus of a cluster. Its tasks end with it.
pub struct RedisBus {
    keys: Keys,
    publisher: Publisher,
    subscriber: Subscriber,
    own: OwnName,
    inboxes: Mutex<Inboxes>,
    receiver: Mutex<Option<mpsc::Receiver<Arrival>>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Inboxes {
    everyone: Option<Hold>,
    own: VecDeque<(Generation, Hold)>,
}

impl RedisBus {
    /// Begins to connect. Must be called in a runtime.
    pub fn new(client: Client, keys: Keys, clock: Arc<RedisClock>, own: OwnName, settings: BusSettings) -> Self {
        let sealer = Sealer::new(&settings.token, &settings.previous_token);
        let (out, receiver) = mpsc::channel(settings.queue.max(1));
        let subscriber = Subscriber::new(client.timeout());
        let mut tasks = JoinSet::new();
        let opener = Opener::new(sealer.clone(), &keys);
        tasks.spawn(subscriber.clone().run(client.clone(), opener, clock.clone(), out));
        let writer = Writer { client, keys: keys.clone(), sealer, clock, node: settings.node, own: own.clone() };
        let (publisher, publishing) = Publisher::new(writer);
        tasks.spawn(publishing);
        let receiver = Mutex::new(Some(receiver));
        Self { keys, publisher, subscriber, own, inboxes: Mutex::default(), receiver, _tasks: tasks }
    }

    fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusSettings")
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisBus")
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn appear_as(&self, generation: Generation) -> Result<(), BackendError> {
        let everyone = self.subscriber.hold(self.keys.everyone()).await?;
        let own = self.subscriber.hold(self.keys.inbox(generation)).await?;
        let mut inboxes = self.inboxes();
        inboxes.everyone = Some(everyone);
        if inboxes.own.back().is_none_or(|(last, _)| *last != generation) {
            inboxes.own.push_back((generation, own));
        }
        if inboxes.own.len() > INBOXES {
            inboxes.own.pop_front();
        }
        self.own.set(generation);
        Ok(())
    }

    async fn publish(&self, message: Message) -> Result<(), BackendError> {
        let channel = self.keys.room(&message.room);
        self.publisher.publish(channel, Draft::Message(message), None).await.map(drop)
    }

    async fn post(&self, to: Recipient, letter: Letter) -> Result<Posted, BackendError> {
        let (channel, recipient) = match to {
            Recipient::Node(generation) => (self.keys.inbox(generation), Some(generation)),
            Recipient::Everyone => (self.keys.everyone(), None),
        };
        let asks = letter.kind == LetterKind::Call;
        if asks && !self.subscriber.is_up() {
            return Err(BackendError::unavailable("an answer would not arrive: the subscription to redis is away"));
        }
        let recipient = recipient.filter(|_| asks);
        self.publisher.publish(channel, Draft::Letter(letter), recipient).await
    }

    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError> {
        Ok(Subscription::new(self.subscriber.hold(self.keys.room(room)).await?))
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Arrival>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

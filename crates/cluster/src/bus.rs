//! The bus over Redis's publish and subscribe.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phalanx_core::Generation;
use phalanx_core::backend::{
    Arrival, BackendError, Bus, KeptAlive, Letter, LetterKind, Message, MessageKind, Posted, Recipient, Subscription,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::clock::RedisClock;
use crate::current_generation::OwnName;
use crate::envelope::{Draft, Opener, Sealer, Spoken};
use crate::interop::{Ear, Interop, InteropSettings, publish_answers};
use crate::keys::Keys;
use crate::publisher::{Publisher, Writer};
use crate::subscriber::{Ears, Hold, Subscriber};

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
    /// Bytes of the longest message that is taken.
    pub longest: usize,
    /// How foreign nodes are spoken with, if there are any.
    pub interop: Option<InteropSettings>,
}

/// The bus of a cluster. Its tasks end with it.
pub struct RedisBus {
    keys: Keys,
    publisher: Publisher,
    subscriber: Subscriber,
    own: OwnName,
    spoken: Spoken,
    foreign: Option<(Arc<Ear>, Arc<Interop>)>,
    inboxes: Mutex<Inboxes>,
    receiver: Mutex<Option<mpsc::Receiver<Arrival>>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Inboxes {
    everyone: Option<Hold>,
    foreign: Option<Hold>,
    own: VecDeque<(Generation, Hold)>,
}

impl RedisBus {
    /// Begins to connect. Must be called in a runtime.
    pub fn new(client: Client, keys: Keys, clock: Arc<RedisClock>, own: OwnName, settings: BusSettings) -> Self {
        let sealer = Sealer::new(&settings.token, &settings.previous_token);
        let (out, receiver) = mpsc::channel(settings.queue.max(1));
        let subscriber = Subscriber::new(client.timeout());
        let mut tasks = JoinSet::new();
        let (ear, answers) = settings.interop.map(|interop| Ear::new(&settings.node, interop)).unzip();
        let ear = ear.map(Arc::new);
        let ours = Mutex::new(Opener::new(sealer.clone(), &keys));
        let ears = Ears { ours, foreign: ear.clone(), longest: settings.longest };
        tasks.spawn(subscriber.clone().run(client.clone(), ears, clock.clone(), out));
        let (own_name, shared, spoken) = (own.clone(), client.clone(), sealer.spoken.clone());
        let writer = Writer { client, keys: keys.clone(), sealer, clock, node: settings.node, own: own_name };
        let (publisher, publishing) = Publisher::new(writer);
        tasks.spawn(publishing);
        if let (Some(ear), Some(answers)) = (ear.clone(), answers) {
            tasks.spawn(publish_answers(ear, publisher.clone(), answers));
        }
        let foreign = ear.map(|ear| {
            let interop = Interop::new(ear.clone(), shared, keys.clone(), publisher.clone(), subscriber.clone());
            (ear, Arc::new(interop))
        });
        let receiver = Mutex::new(Some(receiver));
        Self { keys, publisher, subscriber, own, spoken, foreign, inboxes: Mutex::default(), receiver, _tasks: tasks }
    }

    /// Foreign nodes on the same bus, if there may be any.
    pub fn foreign(&self) -> Option<Arc<Interop>> {
        self.foreign.as_ref().map(|(_, interop)| interop.clone())
    }

    /// The version of its envelopes.
    pub fn spoken(&self) -> Spoken {
        self.spoken.clone()
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
        let foreign = match &self.foreign {
            Some((ear, _)) => Some(self.subscriber.hold(ear.channel().to_owned()).await?),
            None => None,
        };
        let mut inboxes = self.inboxes();
        inboxes.everyone = Some(everyone);
        inboxes.foreign = foreign;
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
        // Of a room that is destroyed, their members heard before they were taken out of it.
        if message.kind == MessageKind::Said
            && let Some((ear, _)) = &self.foreign
            && let Some(said) = ear.said(&message)
        {
            let foreign = (ear.channel().to_owned(), said);
            return self.publisher.publish_both(channel, Draft::Message(message), foreign).await;
        }
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

    fn try_post(&self, to: Recipient, letter: Letter, alive: KeptAlive) -> Result<(), (Letter, KeptAlive)> {
        let channel = match to {
            Recipient::Node(generation) => self.keys.inbox(generation),
            Recipient::Everyone => self.keys.everyone(),
        };
        self.publisher.try_publish(channel, letter, alive)
    }

    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError> {
        Ok(Subscription::new(self.subscriber.hold(self.keys.room(room)).await?))
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Arrival>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use phalanx_core::backend::{Clock, Missed, SystemClock};
    use phalanx_testkit::Redis;

    use super::*;

    fn bus(url: &str, clock: RedisClock) -> RedisBus {
        let (node, token) = ("n".to_owned(), "t".to_owned());
        let (queue, longest) = (8, 1 << 20);
        let settings = BusSettings { node, token, previous_token: String::new(), queue, longest, interop: None };
        let client = Client::open(url, Duration::from_secs(10)).unwrap();
        RedisBus::new(client, Keys::new("actionhero:", "laws"), Arc::new(clock), OwnName::default(), settings)
    }

    #[tokio::test]
    async fn what_is_too_old_when_it_comes_was_missed_and_the_gap_is_told() {
        let redis = Redis::start().await;
        let slow = RedisClock::default();
        slow.set(SystemClock::default().now_us() - 60_000_000, Duration::ZERO);
        let (speaker, listener) = (bus(&redis.url(), slow), bus(&redis.url(), RedisClock::default()));
        let mut arrivals = listener.receiver().unwrap();
        let _held = listener.subscribe(&"r".into()).await.unwrap();
        speaker.appear_as(Generation::random()).await.unwrap();
        let message = Message { room: "r".into(), kind: MessageKind::Said, who: None, payload: "{}".into() };
        speaker.publish(message).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(20), arrivals.recv()).await.unwrap();
        assert!(matches!(heard, Some(Arrival::Gap(Missed::Overflow))), "{heard:?}");
    }
}

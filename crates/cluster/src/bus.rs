//! The bus over PUBLISH and SUBSCRIBE of Redis.

use std::collections::VecDeque;
use std::fmt;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phalanx_core::Generation;
use phalanx_core::backend::{
    BackendError, Bus, Incoming, NodeMessage, NodeMessageKind, Posted, Publication, PublicationKind, Recipient,
    SendGuard, Subscription, TagId, TagMessage, TagMessageKind,
};
use phalanx_core::future::BoxFuture;
use phalanx_core::protocol::RoomMessage;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::RedisClient;
use crate::clock::RedisClock;
use crate::current_generation::{CurrentGeneration, GENERATIONS};
use crate::envelope::{EnvelopeReader, EnvelopeVersion, EnvelopeWriter, MacKeys};
use crate::failover;
use crate::interop::{InteropChannel, InteropSettings, RedisInterop, publish_replies};
use crate::keys::Keys;
use crate::link::{OwnLink, PublisherLink};
use crate::publisher::{InteropCopy, Publisher, PublisherParts};
use crate::subscriber::{ChannelHandle, MessageDecoder, Subscriber};

/// The settings of a node's bus.
#[derive(Clone)]
pub struct BusSettings {
    /// The node's id, for people and logs.
    pub node: String,
    /// The secret of the cluster, from which the key of the MAC is derived.
    pub token: String,
    /// The secret before it, still accepted while the token is replaced; empty if there is none.
    pub previous_token: String,
    /// The length of the queue of received messages. Beyond it, messages are dropped and counted, and the gap is
    /// reported.
    pub queue: usize,
    /// The most bytes of a message; longer ones are skipped.
    pub max_envelope: usize,
    /// The settings for Actionhero nodes, if the cluster may have any.
    pub interop: Option<InteropSettings>,
}

/// The bus of a cluster. Its tasks end with it.
pub struct RedisBus {
    keys: Keys,
    publisher: Publisher,
    subscriber: Subscriber,
    current: CurrentGeneration,
    version: EnvelopeVersion,
    link: PublisherLink,
    interop: Option<Arc<RedisInterop>>,
    inboxes: Mutex<Inboxes>,
    receiver: Mutex<Option<mpsc::Receiver<Incoming>>>,
    _tasks: JoinSet<()>,
}

/// The inboxes of this node's generations, the latest last.
type Inboxes = VecDeque<(Generation, ChannelHandle)>;

impl RedisBus {
    /// Connects in the background. Must be called in a runtime.
    pub fn new(
        client: RedisClient,
        keys: Keys,
        clock: Arc<RedisClock>,
        current: CurrentGeneration,
        settings: BusSettings,
    ) -> Self {
        let (out, receiver) = mpsc::channel(settings.queue.max(1));
        let (channel, replies) = settings.interop.map(|interop| InteropChannel::new(&settings.node, interop)).unzip();
        let channel = channel.map(Arc::new);
        let permanent = iter::once(keys.all_nodes()).chain(channel.iter().map(|channel| channel.name().to_owned()));
        let subscriber = Subscriber::new(client.clone(), keys.clone(), permanent.collect());
        let mac_keys = MacKeys::new(&settings.token, &settings.previous_token);
        let link = PublisherLink::default();
        let own = OwnLink { current: current.clone(), link: link.clone() };
        let envelopes = Mutex::new(EnvelopeReader::new(mac_keys.clone(), &keys, own));
        let (room_prefix, tag_prefix) = (keys.room_prefix(), keys.tag_prefix());
        let (interop, max_message) = (channel.clone(), settings.max_envelope);
        let decoder = MessageDecoder { envelopes, interop, room_prefix, tag_prefix, max_message };
        let mut tasks = JoinSet::new();
        tasks.spawn(subscriber.clone().report_absence(out.clone()));
        tasks.spawn(subscriber.clone().run(decoder, clock.clone(), out));
        let version = EnvelopeVersion::default();
        let (publisher, publishing) = Publisher::new(PublisherParts {
            client: client.clone(),
            keys: keys.clone(),
            envelopes: EnvelopeWriter::new(mac_keys),
            clock,
            node: settings.node,
            current: current.clone(),
            link: link.clone(),
            session: subscriber.session(),
        });
        tasks.spawn(publishing);
        tasks.spawn(failover::run(client.clone(), keys.clone()));
        if let (Some(channel), Some(replies)) = (channel.clone(), replies) {
            tasks.spawn(publish_replies(channel, publisher.clone(), replies));
        }
        let interop = channel.map(|channel| {
            Arc::new(RedisInterop::new(channel, client, keys.clone(), publisher.clone(), subscriber.clone()))
        });
        let receiver = Mutex::new(Some(receiver));
        let inboxes = Mutex::default();
        Self { keys, publisher, subscriber, current, version, link, interop, inboxes, receiver, _tasks: tasks }
    }

    /// The Actionhero nodes on the same Redis, if the cluster may have any.
    pub fn interop(&self) -> Option<Arc<RedisInterop>> {
        self.interop.clone()
    }

    /// The newest version of envelopes that all live nodes read.
    pub fn version(&self) -> EnvelopeVersion {
        self.version.clone()
    }

    /// The connection over which this bus publishes.
    pub fn link(&self) -> PublisherLink {
        self.link.clone()
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
    async fn open_inbox(&self, generation: Generation) -> Result<(), BackendError> {
        // The channels of all nodes are subscribed before any inbox.
        let inbox = self.subscriber.subscribe(self.keys.inbox(generation)).await?;
        let mut inboxes = self.inboxes();
        if inboxes.back().is_none_or(|(last, _)| *last != generation) {
            inboxes.push_back((generation, inbox));
        }
        if inboxes.len() > GENERATIONS {
            inboxes.pop_front();
        }
        self.current.set(generation);
        Ok(())
    }

    async fn publish(&self, message: Publication) -> Result<(), BackendError> {
        let channel = self.keys.room(&message.room);
        // Not the destroy message: Actionhero's members of the room got it before they were removed from the room.
        let interop = match &self.interop {
            Some(interop) if message.kind == PublicationKind::Message => {
                let (chat, to) = (RoomMessage::from_payload(&message.payload), interop.channel());
                chat.map(|chat| InteropCopy { channel: to.name().to_owned(), text: to.encode_chat(&chat) })
            }
            Some(_) | None => None,
        };
        self.publisher.publish_to_room(channel, message, interop).await
    }

    fn all_read_lists(&self) -> bool {
        self.version.has_lists()
    }

    async fn post(&self, to: Recipient, message: NodeMessage) -> Result<Posted, BackendError> {
        let (channel, recipient) = match to {
            Recipient::Node(generation) => (self.keys.inbox(generation), Some(generation)),
            Recipient::Everyone => (self.keys.all_nodes(), None),
        };
        let is_call = message.kind == NodeMessageKind::Call;
        if is_call && !self.subscriber.is_up() {
            return Err(BackendError::unavailable("a reply would not arrive: the subscription to redis is down"));
        }
        let recipient = recipient.filter(|_| is_call);
        self.publisher.publish(channel, message, recipient).await
    }

    fn try_post(&self, to: Recipient, message: NodeMessage, guard: SendGuard) -> Result<(), (NodeMessage, SendGuard)> {
        let channel = match to {
            Recipient::Node(generation) => self.keys.inbox(generation),
            Recipient::Everyone => self.keys.all_nodes(),
        };
        self.publisher.try_publish(channel, message, guard)
    }

    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError> {
        Ok(Subscription::new(self.subscriber.subscribe(self.keys.room(room)).await?))
    }

    async fn publish_to_tag(&self, message: TagMessage) -> Result<usize, BackendError> {
        if message.kind == TagMessageKind::Call && !self.subscriber.is_up() {
            return Err(BackendError::unavailable("replies would not arrive: the subscription to redis is down"));
        }
        self.publisher.publish_to_tag(self.keys.tag(message.tag), message).await
    }

    fn subscribe_to_tag(&self, tag: TagId) -> (Subscription, BoxFuture<'static, Result<(), BackendError>>) {
        let (handle, confirmed) = self.subscriber.want(self.keys.tag(tag));
        (Subscription::new(handle), Box::pin(confirmed))
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Incoming>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use phalanx_core::backend::{Clock, GapCause, SystemClock};
    use phalanx_testkit::Redis;

    use super::*;

    fn bus(url: &str, clock: RedisClock) -> RedisBus {
        let (node, token) = ("n".to_owned(), "t".to_owned());
        let (queue, max_envelope) = (8, 1 << 20);
        let settings = BusSettings { node, token, previous_token: String::new(), queue, max_envelope, interop: None };
        let client = RedisClient::open(url, Duration::from_secs(10)).unwrap();
        RedisBus::new(client, Keys::new("actionhero:", "laws"), Arc::new(clock), CurrentGeneration::default(), settings)
    }

    #[tokio::test]
    async fn a_message_that_is_stale_when_it_arrives_is_reported_as_a_gap() {
        let redis = Redis::start().await;
        let slow = RedisClock::default();
        slow.set(SystemClock::default().now_us() - 60_000_000, Duration::ZERO);
        let (publisher, subscriber) = (bus(&redis.url(), slow), bus(&redis.url(), RedisClock::default()));
        let mut arrivals = subscriber.receiver().unwrap();
        let _subscription = subscriber.subscribe(&"r".into()).await.unwrap();
        publisher.open_inbox(Generation::random()).await.unwrap();
        let message =
            Publication { room: "r".into(), kind: PublicationKind::Message, connection: None, payload: "{}".into() };
        publisher.publish(message).await.unwrap();
        let arrival = tokio::time::timeout(Duration::from_secs(20), arrivals.recv()).await.unwrap();
        assert!(matches!(arrival, Some(Incoming::Gap(Some(_), GapCause::Overflow))), "{arrival:?}");
    }
}

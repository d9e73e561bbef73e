//! Receives channels over one subscribed connection that reconnects automatically, and reports when it was down.
//!
//! A channel walks through these states: unsubscribed → subscribing → subscribed → lingering for 5 s, once no handle is
//! left → unsubscribing → unsubscribed. If Redis refuses, it is refused, and subscribed again a moment later. A handle
//! that is created while the channel is being unsubscribed waits for the confirmation of a new subscription.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use phalanx_core::backend::{BackendError, Clock, Incoming};
use phalanx_core::bound_reached;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::client::RedisClient;
use crate::clock::RedisClock;
use crate::failover;
use crate::keys::Keys;
use crate::link;
use crate::raw_connection::{RawConnection, Writes};
use crate::refusals::{self, RefusalMeaning};
use crate::resp;

mod absence;
mod channels;
mod gaps;
mod reader;

use absence::Absence;
use channels::{ChannelTable, Confirmed};
use gaps::PendingGaps;
use reader::ChannelReader;
pub(crate) use reader::MessageDecoder;

/// The most channels in one SUBSCRIBE or UNSUBSCRIBE.
const BATCH: usize = 500;

/// The interval of PING, which alone detects a server that is frozen.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The extra time for the reader to process replies that were received before the timeout.
const FROZEN_GRACE: Duration = Duration::from_millis(100);

/// The shortest and the longest pause before a reconnect.
const RECONNECT_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// After a session of this length the next reconnect starts with the shortest pause again.
const STABLE_SESSION: Duration = Duration::from_secs(5);

/// Sessions in a row that end soon before the next one is delayed: one loss of a connection may follow another when a
/// Redis is replaced.
const QUICK_SESSIONS: usize = 2;

/// The wanted channels, shared with the task that receives them.
#[derive(Clone)]
pub(crate) struct Subscriber(Arc<SubscriberState>);

struct SubscriberState {
    channels: Mutex<ChannelTable>,
    /// Wakes the task: a channel is wanted.
    changed: Notify,
    /// The number of the session, once all wanted channels are subscribed on its connection and until that breaks; else 0.
    session: watch::Sender<u64>,
    gaps: PendingGaps,
    /// The time for which the subscriber is not up.
    absence: Absence,
    /// Why the last connection broke or could not be established.
    last_error: Mutex<String>,
    permanent: Vec<Arc<str>>,
    client: RedisClient,
    keys: Keys,
}

/// Keeps a channel subscribed until it is dropped.
pub(crate) struct ChannelHandle {
    shared: Arc<SubscriberState>,
    channel: Arc<str>,
}

impl Drop for ChannelHandle {
    fn drop(&mut self) {
        self.shared.channels().remove_handle(&self.channel);
    }
}

impl Subscriber {
    /// Remains subscribed to the `permanent` channels, before all others: that of all nodes, on which they announce their
    /// connections, and that of Actionhero nodes, which has messages of all rooms.
    pub(crate) fn new(client: RedisClient, keys: Keys, permanent: Vec<String>) -> Self {
        let (changed, last_error, session, gaps, absence) = Default::default();
        let permanent: Vec<Arc<str>> = permanent.into_iter().map(Arc::from).collect();
        let channels = Mutex::new(ChannelTable::new(&permanent));
        let state = SubscriberState { channels, changed, session, gaps, absence, permanent, last_error, client, keys };
        Self(Arc::new(state))
    }

    /// Whether messages are being received.
    pub(crate) fn is_up(&self) -> bool {
        *self.0.session.borrow() > 0
    }

    /// The number of the session, 0 while there is none.
    pub(crate) fn session(&self) -> watch::Receiver<u64> {
        self.0.session.subscribe()
    }

    /// Subscribes to a channel; completes when every later message will be received. Cancel safe.
    pub(crate) async fn subscribe(&self, channel: String) -> Result<ChannelHandle, BackendError> {
        let (handle, confirmed) = self.want(channel);
        confirmed.await.map(|()| handle)
    }

    /// Subscribes to a channel for as long as the handle exists, whether the future, which completes when every later
    /// message will be received, fails or is dropped.
    pub(crate) fn want(
        &self,
        channel: String,
    ) -> (ChannelHandle, impl Future<Output = Result<(), BackendError>> + Send + use<>) {
        let (handle, confirmed) = self.add_handle(channel);
        let subscriber = self.clone();
        let confirmed = async move {
            let Some(confirmed) = confirmed else { return Ok(()) };
            match timeout(subscriber.0.client.timeout(), confirmed).await {
                Ok(Ok(subscribed)) => subscribed,
                Ok(Err(_)) => Err(BackendError::unavailable("the bus is closed")),
                Err(_) => Err(BackendError::unavailable(subscriber.timeout_message())),
            }
        };
        (handle, confirmed)
    }

    /// The error for a subscription that was not confirmed in time.
    fn timeout_message(&self) -> String {
        let late = "redis did not confirm a subscription in time";
        let mut reason = self.0.last_error().clone();
        if reason.is_empty() {
            reason = self.0.client.connection_failure();
        }
        if self.is_up() || reason.is_empty() { late.to_owned() } else { format!("{late}: {reason}") }
    }

    /// Creates a handle, and returns what to wait for unless the channel is already subscribed.
    fn add_handle(&self, channel: String) -> (ChannelHandle, Option<Confirmed>) {
        let (channel, confirmed) = self.0.channels().add_handle(channel.into());
        if confirmed.is_some() {
            self.0.changed.notify_one();
        }
        (ChannelHandle { shared: self.0.clone(), channel }, confirmed)
    }

    /// Receives forever, reconnecting when a connection breaks, and passes every verified message on.
    pub(crate) async fn run(self, decoder: MessageDecoder, clock: Arc<RedisClock>, out: mpsc::Sender<Incoming>) {
        let decoder = Arc::new(decoder);
        let (mut pause, mut sessions, mut flaps) = (RECONNECT_DELAYS.0, 0_u64, Flaps::default());
        loop {
            let started = Instant::now();
            let error = match self.connect().await {
                Ok((number, RawConnection { reads, writes })) => {
                    let (confirm, confirmations) = mpsc::channel(BATCH);
                    let reader = ChannelReader {
                        reads,
                        confirm,
                        skip: 0,
                        stale: HashSet::new(),
                        decoder: decoder.clone(),
                        clock: clock.clone(),
                        out: out.clone(),
                        shared: self.0.clone(),
                    };
                    let commands = CommandHalf { writes, confirmations, limit: self.0.client.timeout() };
                    self.run_session(number, commands, reader, &mut sessions).await
                }
                Err(error) => error,
            };
            let was_up = self.0.reset();
            if was_up {
                self.0.absence.begin();
                // Pending calls will not get their replies. If the queue is full, they run into their deadlines
                // instead.
                let _ = out.try_send(Incoming::Away);
            }
            if let Some(interop) = &decoder.interop {
                interop.fail_pending_calls();
            }
            if was_up && sessions > 1 {
                flaps.record(started);
            }
            if started.elapsed() > STABLE_SESSION {
                pause = RECONNECT_DELAYS.0;
            }
            warn!(reason = error, "the subscription to redis broke off");
            *self.0.last_error() = error;
            let jitter = rand::random_range(0.5..1.0);
            sleep(pause.mul_f64(jitter).max(flaps.delay())).await;
            pause = (pause * 2).min(RECONNECT_DELAYS.1);
        }
    }

    /// Opens a connection to the server that commands go to. Also returns the number by which it is to be replaced.
    async fn connect(&self) -> Result<(watch::Receiver<u64>, RawConnection), String> {
        let number = failover::anchor(&self.0.client, &self.0.keys).await.map_err(|error| error.to_string())?;
        match self.0.client.raw_connection().await {
            Ok(connection) => Ok((number, connection)),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err("no connection in time".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reports each absence that lasts.
    pub(crate) async fn report_absence(self, out: mpsc::Sender<Incoming>) {
        let mut ticks = interval(HEARTBEAT / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.0.absence.report(Instant::now(), || out.try_send(Incoming::StillAway).is_ok());
        }
    }

    /// Receives over one connection until it breaks or is to be replaced; returns the reason.
    async fn run_session(
        &self,
        mut number: watch::Receiver<u64>,
        mut commands: CommandHalf,
        reader: ChannelReader,
        sessions: &mut u64,
    ) -> String {
        // The reader is a task of its own: it receives messages while this one waits for confirmations.
        let (decoder, clock) = (reader.decoder.clone(), reader.clock.clone());
        let mut reading = JoinSet::new();
        reading.spawn(reader.run());
        let session = async {
            match self.learn_links(&mut commands, &decoder, &clock).await {
                Ok(()) => self.keep_subscribed(&mut commands, &mut reading, sessions).await,
                Err(reason) => reason,
            }
        };
        let reason = tokio::select! {
            biased;
            error = failover::replaced(&mut number) => error.to_string(),
            reason = session => reason,
        };
        // No message of this session may come after a gap of the next one.
        reading.shutdown().await;
        reason
    }

    /// Subscribes and unsubscribes, and checks that the connection works, until it breaks; returns the reason.
    async fn keep_subscribed(
        &self,
        commands: &mut CommandHalf,
        reading: &mut JoinSet<String>,
        sessions: &mut u64,
    ) -> String {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.0.channels().begin();
        loop {
            let is_complete = match self.sync_channels(commands).await {
                Ok(is_complete) => is_complete,
                Err(reason) => return reason,
            };
            if is_complete && !self.is_up() {
                *sessions += 1;
                if *sessions > 1 {
                    info!("the subscription to redis is back");
                }
                self.0.session.send_replace(*sessions);
                self.0.absence.end();
            }
            tokio::select! {
                ended = reading.join_next() => {
                    return ended.and_then(Result::ok).unwrap_or_else(|| "the reader ended".to_owned());
                }
                () = self.0.changed.notified() => {}
                // An error reply is fine too. A Redis that cannot save its data refuses even PING, and still publishes.
                _ = ticks.tick() => if let Err(reason) = commands.send("PING", &[]).await { return reason },
            }
        }
    }

    /// Learns the connections of all senders before any room is subscribed; see [`link`].
    async fn learn_links(
        &self,
        commands: &mut CommandHalf,
        decoder: &MessageDecoder,
        clock: &RedisClock,
    ) -> Result<(), String> {
        decoder.envelopes().forget_links();
        if let Confirmation::Refused(reply) = commands.send("SUBSCRIBE", &self.0.permanent).await? {
            self.0.client.record_refusal(&refusals::error_of(&reply));
            self.0.refuse_all(&reply);
            return Err(reply);
        }
        self.0.set_subscribed(&self.0.permanent);
        let links = match link::read(&self.0.client, &self.0.keys).await {
            Ok(links) => links,
            Err(error) => {
                if let BackendError::Refused(reply) = &error {
                    self.0.refuse_all(&reply.to_string());
                }
                return Err(error.to_string());
            }
        };
        decoder.envelopes().learn_links(&links, clock.now_ms());
        Ok(())
    }

    /// Subscribes to the wanted channels and unsubscribes from those whose pause is over. Returns whether all are
    /// subscribed, except those for which a right is missing.
    async fn sync_channels(&self, commands: &mut CommandHalf) -> Result<bool, String> {
        let mut is_complete = true;
        loop {
            let wanted = self.0.channels().take_wanted(Instant::now(), BATCH);
            if !wanted.is_empty() {
                is_complete &= self.request_channels(commands, &wanted).await?;
                continue;
            }
            let unwanted = self.0.channels().take_unwanted(Instant::now(), BATCH);
            if unwanted.is_empty() {
                return Ok(is_complete);
            }
            commands.request("UNSUBSCRIBE", &unwanted).await?;
            self.0.set_unsubscribed(&unwanted);
        }
    }

    /// Subscribes to these channels. A refusal ends the wait of the callers and not the session, in which other channels
    /// may be subscribed: without a gap they are still received. Returns `false` if Redis is busy and refuses all channels
    /// for a while.
    async fn request_channels(&self, commands: &mut CommandHalf, wanted: &[Arc<str>]) -> Result<bool, String> {
        let reply = match commands.send("SUBSCRIBE", wanted).await? {
            Confirmation::Confirmed => {
                self.0.set_subscribed(wanted);
                return Ok(true);
            }
            Confirmation::Refused(reply) => reply,
        };
        let meaning = RefusalMeaning::of(&reply);
        if meaning == RefusalMeaning::OfCommand && wanted.len() > 1 {
            // Redis refuses all of them although a right may be missing for one alone.
            for one in wanted {
                Box::pin(self.request_channels(commands, std::slice::from_ref(one))).await?;
            }
            return Ok(true);
        }
        self.0.client.record_refusal(&refusals::error_of(&reply));
        self.0.set_refused(wanted, &reply);
        Ok(meaning == RefusalMeaning::OfCommand)
    }
}

/// The sessions that ended soon after they began. Each begins with a gap for every room: from the third in a row on, they
/// are at least [`STABLE_SESSION`] apart, so that members need not read the state of their rooms again all the time.
#[derive(Default)]
struct Flaps {
    in_a_row: usize,
    last_started: Option<Instant>,
}

impl Flaps {
    /// Records a session that ended.
    fn record(&mut self, started: Instant) {
        self.in_a_row = if started.elapsed() < STABLE_SESSION { self.in_a_row + 1 } else { 0 };
        self.last_started = Some(started);
    }

    /// How long the next session waits.
    fn delay(&self) -> Duration {
        match self.last_started {
            Some(started) if self.in_a_row >= QUICK_SESSIONS => {
                bound_reached("bus.sessions");
                STABLE_SESSION.saturating_sub(started.elapsed())
            }
            _ => Duration::ZERO,
        }
    }
}

/// Redis's reply to one argument of a command on a subscribed connection.
enum Confirmation {
    Confirmed,
    /// Redis refused the command, with this message.
    Refused(String),
}

/// The half of a connection that sends commands, one at a time.
struct CommandHalf {
    writes: Writes,
    /// The replies that the reader receives.
    confirmations: mpsc::Receiver<Confirmation>,
    limit: Duration,
}

impl CommandHalf {
    /// Sends a command and waits until each of its arguments is confirmed.
    async fn request(&mut self, command: &str, arguments: &[Arc<str>]) -> Result<(), String> {
        match self.send(command, arguments).await? {
            Confirmation::Confirmed => Ok(()),
            Confirmation::Refused(reason) => Err(reason),
        }
    }

    /// Sends a command and waits for the reply. A refusal is a reply too; an error means that the connection is of no
    /// use any longer.
    async fn send(&mut self, command: &str, arguments: &[Arc<str>]) -> Result<Confirmation, String> {
        let mut bytes = BytesMut::new();
        let parts: Vec<_> = std::iter::once(command).chain(arguments.iter().map(|argument| &**argument)).collect();
        resp::write(&mut bytes, parts.iter().map(|part| part.as_bytes()));
        let reply = async {
            let written = async { self.writes.write_all(&bytes).await.and(self.writes.flush().await) };
            written.await.map_err(|error| error.to_string())?;
            for _ in 0..arguments.len().max(1) {
                match self.confirmations.recv().await.ok_or("the connection was closed")? {
                    Confirmation::Confirmed => {}
                    refused @ Confirmation::Refused(_) => return Ok(refused),
                }
            }
            Ok(Confirmation::Confirmed)
        };
        let mut reply = pin!(reply);
        if let Ok(reply) = timeout(self.limit, &mut reply).await {
            return reply;
        }
        // In a process that was frozen, the timeout fires before the reader has processed what arrived meanwhile.
        timeout(FROZEN_GRACE, reply).await.unwrap_or_else(|_| Err(format!("no reply to {command} in time")))
    }
}

impl SubscriberState {
    fn channels(&self) -> MutexGuard<'_, ChannelTable> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_error(&self) -> MutexGuard<'_, String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_subscribed(&self, names: &[Arc<str>]) {
        let mut channels = self.channels();
        channels.set_subscribed(names);
        record_channels(&channels);
    }

    fn set_refused(&self, names: &[Arc<str>], reply: &str) {
        let mut channels = self.channels();
        channels.set_refused(names, || refusals::error_of(reply));
        record_channels(&channels);
    }

    /// Ends the wait of all callers: Redis refuses what comes before any subscription.
    fn refuse_all(&self, reply: &str) {
        self.channels().refuse_all(|| refusals::error_of(reply));
    }

    /// Records that the reader has received the confirmation of a subscription. Returns whether messages were missed
    /// since an earlier one.
    fn confirm(&self, name: &str) -> bool {
        self.channels().confirm(name)
    }

    /// Whether messages of a channel were missed, and the gap comes with the confirmation of its subscription.
    fn has_gap(&self, name: &str) -> bool {
        self.channels().has_gap(name)
    }

    fn set_unsubscribed(&self, names: &[Arc<str>]) {
        let mut channels = self.channels();
        channels.set_unsubscribed(names);
        record_channels(&channels);
    }

    /// Resets all channels after a connection broke: the next one has no subscriptions. Returns whether the subscriber
    /// was up until then.
    fn reset(&self) -> bool {
        let mut channels = self.channels();
        channels.reset();
        record_channels(&channels);
        self.session.send_replace(0) > 0
    }
}

fn record_channels(channels: &ChannelTable) {
    metrics::gauge!("phalanx_bus_channels").set(channels.len() as f64);
}

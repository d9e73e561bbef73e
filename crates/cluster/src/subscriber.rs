//! Receives channels over one subscribed connection that comes back by itself, and says when it was away.
//!
//! A channel walks through five states: none → subscribing → standing → lingering, once nobody holds it, for 5 s →
//! unsubscribing → none. Who takes hold of one that is being unsubscribed waits for the confirmation of a new
//! subscription.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::RedisError;
use deadpool_redis::redis::aio::{PubSubSink, PubSubStream};
use futures_util::StreamExt;
use phalanx_core::backend::{Arrival, BackendError, Clock, Missed};
use phalanx_core::bound_reached;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::client::Client;
use crate::clock::RedisClock;
use crate::envelope::{Opener, Refusal};
use crate::interop::Ear;

/// How long a channel that nobody holds is still received.
const LINGER: Duration = Duration::from_secs(5);

/// Channels that one command subscribes to.
const AT_ONCE: usize = 500;

/// How often the connection is asked whether it is alive: nothing else finds a server that is frozen.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Pauses between sessions, from and to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A session that lasted so long begins with the shortest pause again.
const HEALTHY: Duration = Duration::from_secs(5);

/// The channels that are wanted, and the task that receives them.
#[derive(Clone)]
pub(crate) struct Subscriber(Arc<Shared>);

struct Shared {
    channels: Mutex<HashMap<String, Channel>>,
    changed: Notify,
    /// Whether everything that is wanted was received at once, and is since.
    up: AtomicBool,
    /// Messages were missed while the connection was away, and nobody was told yet.
    away: AtomicBool,
    /// The same of messages that were not taken off in time. All that come are dropped until half of what waits was taken
    /// off, so that a queue which stays full makes one gap and not one for each message that finds a place.
    overflow: AtomicBool,
    /// Why the last connection broke off, or there was none.
    broke_off: Mutex<String>,
    timeout: Duration,
}

struct Channel {
    holds: usize,
    state: State,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    Subscribing,
    Standing,
    Lingering(Instant),
    Unsubscribing,
}

/// Holds a channel coming.
pub(crate) struct Hold {
    shared: Arc<Shared>,
    channel: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut channels = self.shared.channels();
        let Some(channel) = channels.get_mut(&self.channel) else { return };
        channel.holds -= 1;
        if channel.holds > 0 {
            return;
        }
        match channel.state {
            State::Standing => channel.state = State::Lingering(Instant::now() + LINGER),
            State::None => drop(channels.remove(&self.channel)),
            // The task decides when it has its answer.
            State::Subscribing | State::Lingering(_) | State::Unsubscribing => {}
        }
    }
}

impl Subscriber {
    pub(crate) fn new(timeout: Duration) -> Self {
        let [up, away, overflow] = [(); 3].map(|()| AtomicBool::new(false));
        let (channels, changed, broke_off) = Default::default();
        Self(Arc::new(Shared { channels, changed, up, away, overflow, broke_off, timeout }))
    }

    /// Whether messages arrive.
    pub(crate) fn is_up(&self) -> bool {
        self.0.up.load(Relaxed)
    }

    /// Takes hold of a channel; completes when every later message arrives. Cancel safe.
    pub(crate) async fn hold(&self, channel: String) -> Result<Hold, BackendError> {
        let (hold, standing) = self.take(channel);
        let Some(standing) = standing else { return Ok(hold) };
        match timeout(self.0.timeout, standing).await {
            Ok(Ok(())) => Ok(hold),
            Ok(Err(_)) => Err(BackendError::unavailable("the bus is closed")),
            Err(_) => Err(BackendError::unavailable(self.late())),
        }
    }

    /// What is told to who waited in vain for a subscription.
    fn late(&self) -> String {
        let late = "redis did not confirm a subscription in time";
        let reason = self.0.broke_off();
        if self.is_up() || reason.is_empty() { late.to_owned() } else { format!("{late}: {reason}") }
    }

    fn take(&self, name: String) -> (Hold, Option<oneshot::Receiver<()>>) {
        let mut channels = self.0.channels();
        let fresh = || Channel { holds: 0, state: State::None, waiting: Vec::new() };
        let channel = channels.entry(name.clone()).or_insert_with(fresh);
        channel.holds += 1;
        let hold = Hold { shared: self.0.clone(), channel: name };
        if let State::Standing | State::Lingering(_) = channel.state {
            channel.state = State::Standing;
            return (hold, None);
        }
        let (confirm, standing) = oneshot::channel();
        channel.waiting.retain(|waiting| !waiting.is_closed());
        channel.waiting.push(confirm);
        self.0.changed.notify_one();
        (hold, Some(standing))
    }

    /// Receives for ever, and hands everything on that is believed.
    pub(crate) async fn run(self, client: Client, ears: Ears, clock: Arc<RedisClock>, out: mpsc::Sender<Arrival>) {
        let ears = Arc::new(ears);
        let (mut pause, mut sessions) = (PAUSES.0, 0_u64);
        loop {
            let began = Instant::now();
            let ended = match timeout(self.0.timeout, client.own().get_async_pubsub()).await {
                Ok(Ok(connection)) => {
                    let (sink, stream) = connection.split();
                    let reader = Reader {
                        stale: false,
                        stream,
                        ears: ears.clone(),
                        clock: clock.clone(),
                        out: out.clone(),
                        shared: self.0.clone(),
                    };
                    self.session(sink, reader, &mut sessions).await
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no connection in time".to_owned(),
            };
            if self.0.forget() {
                // Who asked something will not hear the answer. Where the queue is full, its deadline tells it.
                let _ = out.try_send(Arrival::Away);
            }
            if let Some(ear) = &ears.foreign {
                ear.missed();
            }
            if sessions > 0 {
                self.0.away.store(true, Relaxed);
            }
            if began.elapsed() > HEALTHY {
                pause = PAUSES.0;
            }
            warn!(reason = ended, "the subscription to redis broke off");
            *self.0.broke_off() = ended;
            let jitter = rand::random_range(0.5..1.0);
            sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Receives over one connection until it breaks; says why it did.
    async fn session(&self, mut sink: PubSubSink, reader: Reader, sessions: &mut u64) -> String {
        // Reading goes on while the other half waits for confirmations.
        let mut reading = JoinSet::new();
        reading.spawn(reader.run());
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(reason) = self.follow(&mut sink).await {
                return reason;
            }
            if !self.0.up.load(Relaxed) {
                *sessions += 1;
                if *sessions > 1 {
                    info!("the subscription to redis is back");
                    // Again, if it was told with the first message: other channels may have come later than that.
                    self.0.away.store(true, Relaxed);
                }
                self.0.up.store(true, Relaxed);
            }
            tokio::select! {
                _ = reading.join_next() => return "the connection was closed".to_owned(),
                () = self.0.changed.notified() => {}
                _ = ticks.tick() => {
                    match timeout(self.0.timeout, sink.ping::<deadpool_redis::redis::Value>()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return error.to_string(),
                        Err(_) => return "no answer to a ping".to_owned(),
                    }
                }
            }
        }
    }

    /// Brings what the connection has to what is wanted.
    async fn follow(&self, sink: &mut PubSubSink) -> Result<(), String> {
        loop {
            let wanted = self.0.begin(|channel| match channel.state {
                State::None if channel.holds > 0 => Some(State::Subscribing),
                _ => None,
            });
            if wanted.is_empty() {
                break;
            }
            in_time(self.0.timeout, sink.subscribe(&wanted)).await?;
            self.0.subscribed(&wanted);
        }
        let now = Instant::now();
        let unwanted = self.0.begin(|channel| match channel.state {
            State::Lingering(until) if until <= now => Some(State::Unsubscribing),
            _ => None,
        });
        if !unwanted.is_empty() {
            in_time(self.0.timeout, sink.unsubscribe(&unwanted)).await?;
            self.0.unsubscribed(&unwanted);
        }
        Ok(())
    }
}

async fn in_time(limit: Duration, asked: impl Future<Output = Result<(), RedisError>>) -> Result<(), String> {
    match timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no confirmation in time".to_owned()),
    }
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broke_off(&self) -> MutexGuard<'_, String> {
        self.broke_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves some channels to another state, and answers their names.
    fn begin(&self, mut to: impl FnMut(&Channel) -> Option<State>) -> Vec<String> {
        let mut channels = self.channels();
        let moving = channels.iter_mut().filter_map(|(name, channel)| {
            channel.state = to(channel)?;
            Some(name.clone())
        });
        moving.take(AT_ONCE).collect()
    }

    fn subscribed(&self, names: &[String]) {
        let mut channels = self.channels();
        for name in names {
            let Some(channel) = channels.get_mut(name) else { continue };
            // Who gave up waiting has let go of its hold as well.
            for waiting in channel.waiting.drain(..) {
                let _ = waiting.send(());
            }
            channel.state = match channel.holds {
                0 => State::Lingering(Instant::now() + LINGER),
                _ => State::Standing,
            };
        }
        count(&channels);
    }

    fn unsubscribed(&self, names: &[String]) {
        let mut channels = self.channels();
        for name in names {
            let Some(channel) = channels.get_mut(name) else { continue };
            match channel.holds {
                0 => drop(channels.remove(name)),
                _ => channel.state = State::None, // the next round subscribes anew
            }
        }
        count(&channels);
    }

    /// A connection is gone: the next one has nothing. Says whether everything was received until then.
    fn forget(&self) -> bool {
        let mut channels = self.channels();
        channels.retain(|_, channel| {
            channel.state = State::None;
            channel.holds > 0
        });
        count(&channels);
        self.up.swap(false, Relaxed)
    }
}

/// Who understands what comes: our own envelopes, and what foreign nodes say on their channel.
pub(crate) struct Ears {
    pub(crate) ours: Mutex<Opener>,
    pub(crate) foreign: Option<Arc<Ear>>,
}

impl Ears {
    fn open(&self, channel: &str, bytes: &[u8], now_ms: u64) -> Result<Option<Arrival>, Refusal> {
        match &self.foreign {
            Some(ear) if ear.channel() == channel => ear.open(bytes, now_ms),
            _ => self.ours.lock().unwrap_or_else(PoisonError::into_inner).open(channel, bytes, now_ms).map(Some),
        }
    }
}

/// Takes messages off the connection. Never waits for whoever they go to.
struct Reader {
    stream: PubSubStream,
    ears: Arc<Ears>,
    clock: Arc<RedisClock>,
    out: mpsc::Sender<Arrival>,
    shared: Arc<Shared>,
    /// Messages came that were too old. Told with the next tick: a node whose clock is wrong sends many.
    stale: bool,
}

impl Reader {
    async fn run(mut self) {
        let mut ticks = interval(HEARTBEAT / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.stream.next() => match message {
                    Some(message) => self.hand_on(message.get_channel_name(), message.get_payload_bytes()),
                    None => return,
                },
                _ = ticks.tick() => {
                    self.shared.overflow.fetch_or(std::mem::take(&mut self.stale), Relaxed);
                    if self.shared.up.load(Relaxed) {
                        self.tell_gap();
                    }
                }
            }
        }
    }

    fn hand_on(&mut self, channel: &str, bytes: &[u8]) {
        let all_told = self.tell_gap();
        match self.ears.open(channel, bytes, self.clock.now_ms()) {
            Ok(None) => {}
            Ok(Some(arrival)) => {
                if !all_told || self.out.try_send(arrival).is_err() {
                    bound_reached("rooms.bus_queue");
                    dropped("queue_full");
                    self.shared.overflow.store(true, Relaxed);
                }
            }
            Err(refusal) => {
                dropped(refusal.as_str());
                self.stale |= refusal == Refusal::Stale; // it is of one of us, and nobody will hear it
            }
        }
    }

    /// Says that messages were missed, once there is room to; answers whether nothing is left to say.
    fn tell_gap(&self) -> bool {
        let has_room = self.out.capacity() >= self.out.max_capacity().div_ceil(2);
        let flags = [(&self.shared.away, Missed::Away), (&self.shared.overflow, Missed::Overflow)];
        flags.into_iter().all(|(flag, missed)| {
            // Taken down before it is told: one that is raised meanwhile stays up.
            if !flag.load(Relaxed) {
                return true;
            }
            let is_told = has_room && flag.swap(false, Relaxed) && self.out.try_send(Arrival::Gap(missed)).is_ok();
            flag.fetch_or(!is_told, Relaxed);
            is_told
        })
    }
}

fn count(channels: &HashMap<String, Channel>) {
    metrics::gauge!("phalanx_bus_channels").set(channels.len() as f64);
}

fn dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}

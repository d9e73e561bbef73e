//! Receives channels over one subscribed connection that comes back by itself, and says when it was away.
//!
//! A channel walks through five states: none → subscribing → standing → lingering, once nobody holds it, for 5 s →
//! unsubscribing → none. Who takes hold of one that is being unsubscribed waits for the confirmation of a new
//! subscription.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use phalanx_core::backend::{Arrival, BackendError};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::client::Client;
use crate::clock::RedisClock;
use crate::raw_connection::{RawConnection, Writes};
use crate::resp;

mod reader;

pub(crate) use reader::Ears;
use reader::Reader;

/// How long a channel that nobody holds is still received.
const LINGER: Duration = Duration::from_secs(5);

/// Channels that one command subscribes to.
const AT_ONCE: usize = 500;

/// How often the connection is asked whether it is alive: nothing else finds a server that is frozen.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long what has come already may take to be read.
const LATE: Duration = Duration::from_millis(100);

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
            let ended = match client.raw_connection().await {
                Ok(RawConnection { reads, writes }) => {
                    let (confirm, confirmed) = mpsc::channel(AT_ONCE);
                    let reader = Reader {
                        reads,
                        confirm,
                        skip: 0,
                        stale: false,
                        ears: ears.clone(),
                        clock: clock.clone(),
                        out: out.clone(),
                        shared: self.0.clone(),
                    };
                    self.session(Asking { writes, confirmed, limit: self.0.timeout }, reader, &mut sessions).await
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => "no connection in time".to_owned(),
                Err(error) => error.to_string(),
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
    async fn session(&self, mut asking: Asking, reader: Reader, sessions: &mut u64) -> String {
        // Reading goes on while the other half waits for confirmations.
        let mut reading = JoinSet::new();
        reading.spawn(reader.run());
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(reason) = self.follow(&mut asking).await {
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
                ended = reading.join_next() => {
                    return ended.and_then(Result::ok).unwrap_or_else(|| "the reader ended".to_owned());
                }
                () = self.0.changed.notified() => {}
                // A Redis that cannot save its data refuses even this, and publishes all the same: it answers.
                _ = ticks.tick() => if let Err(reason) = asking.hear("PING", &[]).await { return reason },
            }
        }
    }

    /// Brings what the connection has to what is wanted.
    async fn follow(&self, asking: &mut Asking) -> Result<(), String> {
        loop {
            let wanted = self.0.begin(|channel| match channel.state {
                State::None if channel.holds > 0 => Some(State::Subscribing),
                _ => None,
            });
            if wanted.is_empty() {
                break;
            }
            asking.ask("SUBSCRIBE", &wanted).await?;
            self.0.subscribed(&wanted);
        }
        let now = Instant::now();
        let unwanted = self.0.begin(|channel| match channel.state {
            State::Lingering(until) if until <= now => Some(State::Unsubscribing),
            _ => None,
        });
        if !unwanted.is_empty() {
            asking.ask("UNSUBSCRIBE", &unwanted).await?;
            self.0.unsubscribed(&unwanted);
        }
        Ok(())
    }
}

/// The half of a connection that asks, one command after the other.
struct Asking {
    writes: Writes,
    /// What the other half reads of answers.
    confirmed: mpsc::Receiver<Result<(), String>>,
    limit: Duration,
}

impl Asking {
    /// Sends a command and waits until each of its arguments is confirmed.
    async fn ask(&mut self, command: &str, arguments: &[String]) -> Result<(), String> {
        self.hear(command, arguments).await?
    }

    /// Sends a command and waits for its answer, be it a refusal.
    async fn hear(&mut self, command: &str, arguments: &[String]) -> Result<Result<(), String>, String> {
        let mut bytes = BytesMut::new();
        let parts: Vec<_> = std::iter::once(command).chain(arguments.iter().map(String::as_str)).collect();
        resp::write(&mut bytes, parts.iter().map(|part| part.as_bytes()));
        let heard = async {
            let written = async { self.writes.write_all(&bytes).await.and(self.writes.flush().await) };
            written.await.map_err(|error| error.to_string())?;
            for _ in 0..arguments.len().max(1) {
                let confirmed = self.confirmed.recv().await.ok_or("the connection was closed")?;
                if confirmed.is_err() {
                    return Ok(confirmed);
                }
            }
            Ok(Ok(()))
        };
        let mut heard = pin!(heard);
        if let Ok(answer) = timeout(self.limit, &mut heard).await {
            return answer;
        }
        // A process that was frozen finds its time over before the other half has read what came meanwhile.
        timeout(LATE, heard).await.unwrap_or_else(|_| Err(format!("no answer to {command} in time")))
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

fn count(channels: &HashMap<String, Channel>) {
    metrics::gauge!("phalanx_bus_channels").set(channels.len() as f64);
}

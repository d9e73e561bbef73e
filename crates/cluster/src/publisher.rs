//! Publishes everything of a node over one connection from one task, sealed and numbered as it is written.
//!
//! It writes on while Redis answers what came before. What a connection lost without an answer is sent again over the
//! next one, the very same bytes in the same order: whoever heard a message before sees its number and drops it. That
//! nobody hears the second does not say that nobody heard the first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{BackendError, Clock, KeptAlive, Letter, Posted};
use phalanx_core::{Generation, bound_reached};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use crate::client::Client;
use crate::clock::RedisClock;
use crate::current_generation::OwnName;
use crate::envelope::{Draft, Sealer, Sender};
use crate::keys::Keys;
use crate::raw_connection::{RawConnection, Writes};
use crate::resp::{self, Items, Stop};

mod pending;

use pending::{Done, Pending};

/// Messages that wait for the task; beyond, publishers wait, at most for the time a command has.
const QUEUE: usize = 1024;

/// Messages that are sealed and that Redis has not answered yet.
const UNANSWERED: usize = 128;

/// Messages that go out in one write: as many as are ready, but not so many that Redis has nothing to do meanwhile.
const AT_ONCE: usize = 16;

/// Room for their commands that is kept while there are none.
const KEPT: usize = 64 * 1024;

/// The longest text in an answer; there are none but `QUEUED`.
const LONGEST_ANSWER: usize = 64;

/// The pause before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The end at which messages go in.
#[derive(Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    timeout: Duration,
}

struct Job {
    channel: String,
    text: Text,
    /// Whose name is looked up beside it.
    recipient: Option<Generation>,
    done: Done,
}

/// What is published.
enum Text {
    /// For our nodes.
    Sealed(Draft),
    /// For our nodes, and in the same step for foreign ones: a channel, and a message as it stands.
    Both(Draft, String, Vec<u8>),
    /// For foreign nodes.
    Clear(Vec<u8>),
}

/// What the task needs to seal and to write.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Arc<RedisClock>,
    pub(crate) node: String,
    pub(crate) own: OwnName,
}

impl Publisher {
    /// A publisher and its task, which runs until the last publisher is gone.
    pub(crate) fn new(writer: Writer) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let timeout = writer.client.timeout();
        (Self { jobs, timeout }, Session::new(writer).run(waiting))
    }

    /// Publishes a message and looks up its recipient, in one go.
    pub(crate) async fn publish(
        &self,
        channel: String,
        draft: Draft,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        self.hand_over(channel, Text::Sealed(draft), recipient).await
    }

    /// Publishes a message, and in the same step one for foreign nodes: everybody hears all messages in one order.
    pub(crate) async fn publish_both(
        &self,
        channel: String,
        draft: Draft,
        foreign: (String, Vec<u8>),
    ) -> Result<(), BackendError> {
        self.hand_over(channel, Text::Both(draft, foreign.0, foreign.1), None).await.map(drop)
    }

    /// Publishes a message for foreign nodes as it stands.
    pub(crate) async fn publish_in_clear(&self, channel: String, message: Vec<u8>) -> Result<(), BackendError> {
        self.hand_over(channel, Text::Clear(message), None).await.map(drop)
    }

    /// Publishes a letter whose fate nobody asks about, if there is room, and drops `alive` then.
    pub(crate) fn try_publish(
        &self,
        channel: String,
        letter: Letter,
        alive: KeptAlive,
    ) -> Result<(), (Letter, KeptAlive)> {
        let Ok(place) = self.jobs.try_reserve() else { return Err((letter, alive)) };
        let done = Done::Drop(alive);
        place.send(Job { channel, text: Text::Sealed(Draft::Letter(letter)), recipient: None, done });
        Ok(())
    }

    async fn hand_over(
        &self,
        channel: String,
        text: Text,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        let (done, posted) = oneshot::channel();
        if self.jobs.capacity() == 0 {
            bound_reached("bus.publisher_queue");
        }
        let publishing = async {
            let closed = || BackendError::unavailable("the bus is closed");
            self.jobs.send(Job { channel, text, recipient, done: Done::Tell(done) }).await.map_err(|_| closed())?;
            posted.await.map_err(|_| closed())?
        };
        match timeout(self.timeout, publishing).await {
            Ok(posted) => posted,
            Err(_) => Err(BackendError::unavailable("redis did not take the message in time")),
        }
    }
}

struct Session {
    writer: Writer,
    /// The key of the names of nodes.
    names: String,
    numbered: Option<Generation>,
    seq: u64,
    /// What has no answer, the oldest first.
    pending: VecDeque<Pending>,
    commands: Commands,
}

/// The commands of all that is pending.
#[derive(Default)]
struct Commands {
    bytes: BytesMut,
    /// How many of them the connection took.
    written: usize,
}

impl Session {
    fn new(writer: Writer) -> Self {
        let (pending, commands) = Default::default();
        Self { names: writer.keys.names(), writer, numbered: None, seq: 0, pending, commands }
    }

    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(UNANSWERED);
        loop {
            if self.pending.is_empty() {
                match waiting.recv_many(&mut jobs, UNANSWERED).await {
                    0 => return,
                    _ => self.take(&mut jobs),
                }
                continue;
            }
            let broken = match self.writer.client.raw_connection().await {
                Ok(connection) => self.converse(connection, &mut waiting).await,
                Err(error) => Some(error),
            };
            let Some(error) = broken else { return };
            debug!(%error, "the connection that publishes broke off");
            self.begin_anew();
            sleep(PAUSE).await;
            self.forget_given_up();
        }
    }

    /// Writes and reads until the connection breaks; nothing is the matter if nobody is left who publishes.
    async fn converse(&mut self, connection: RawConnection, waiting: &mut mpsc::Receiver<Job>) -> Option<io::Error> {
        let RawConnection { mut reads, mut writes } = connection;
        let (mut jobs, mut answers) = (Vec::with_capacity(UNANSWERED), BytesMut::with_capacity(4096));
        let limit = self.writer.client.timeout();
        let mut ticks = interval((limit / 4).max(PAUSE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let room = UNANSWERED - self.pending.len();
            tokio::select! {
                biased;
                read = reads.read_buf(&mut answers) => match read {
                    Ok(0) => return Some(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => match self.answer(&mut answers) {
                        Ok(()) => heard = Instant::now(),
                        Err(error) => return Some(error),
                    },
                    Err(error) => return Some(error),
                },
                error = poll_fn(|context| self.commands.poll_write(&mut writes, context)) => return Some(error),
                count = waiting.recv_many(&mut jobs, room.min(AT_ONCE)), if room > 0 => {
                    if count == 0 {
                        return None;
                    }
                    if count < AT_ONCE {
                        // Whoever else is about to publish goes first.
                        yield_now().await;
                        jobs.extend(iter::from_fn(|| waiting.try_recv().ok()).take(room.min(AT_ONCE) - count));
                    }
                    self.take(&mut jobs);
                }
                _ = ticks.tick() => if self.waits_since(heard).is_some_and(|since| since.elapsed() >= limit) {
                    return Some(io::ErrorKind::TimedOut.into());
                },
            }
        }
    }

    /// Since when something is pending and nothing was answered, over a connection that answered last at that time.
    fn waits_since(&self, heard: Instant) -> Option<Instant> {
        self.pending.front().map(|oldest| oldest.taken.max(heard))
    }

    /// Seals and numbers; a new name begins anew with 1.
    fn take(&mut self, jobs: &mut Vec<Job>) {
        jobs.retain(|job| !job.done.is_given_up()); // who gave up was told that it is unknown; it never happened
        let Some(generation) = self.writer.own.get() else {
            let unnamed = || BackendError::unavailable("the node has no name yet");
            return jobs.drain(..).for_each(|job| job.done.with(Err(unnamed())));
        };
        if self.numbered.replace(generation) != Some(generation) {
            self.seq = 0;
        }
        let (now, at_ms) = (Instant::now(), self.writer.clock.now_ms());
        for job in jobs.drain(..) {
            self.write(generation, now, at_ms, job);
        }
    }

    fn write(&mut self, generation: Generation, taken: Instant, at_ms: u64, job: Job) {
        let out = &mut self.commands.bytes;
        let before = out.len();
        let mut sealed = |draft| {
            self.seq += 1;
            let sender = Sender { generation, node: &self.writer.node, at_ms, seq: self.seq };
            self.writer.sealer.seal(&job.channel, sender, draft)
        };
        let publish = |out: &mut BytesMut, channel: &str, message: &[u8]| {
            resp::write(out, [b"PUBLISH", channel.as_bytes(), message].into_iter());
        };
        match &job.text {
            Text::Sealed(draft) => publish(out, &job.channel, &sealed(draft)),
            Text::Clear(message) => publish(out, &job.channel, message),
            Text::Both(draft, channel, message) => {
                resp::write(out, [&b"MULTI"[..]].into_iter());
                publish(out, &job.channel, &sealed(draft));
                publish(out, channel, message);
                resp::write(out, [&b"EXEC"[..]].into_iter());
            }
        }
        if let Some(recipient) = job.recipient {
            let name = recipient.as_str().as_bytes();
            resp::write(out, [b"HEXISTS", self.names.as_bytes(), name].into_iter());
        }
        let (length, is_both) = (out.len() - before, matches!(job.text, Text::Both(..)));
        let asks = job.recipient.is_some();
        self.pending.push_back(Pending { done: job.done, taken, length, is_both, asks, repeated: false });
    }

    /// Hands on what Redis answered.
    fn answer(&mut self, answers: &mut BytesMut) -> io::Result<()> {
        let mut items = Items::new(answers, LONGEST_ANSWER);
        let mut read = 0;
        while let Some(oldest) = self.pending.front() {
            let posted = match oldest.read(&mut items, &self.names) {
                Ok(posted) => posted,
                Err(Stop::Incomplete) => break,
                Err(Stop::Malformed) => return Err(io::ErrorKind::InvalidData.into()),
            };
            read = items.read();
            self.commands.forget(oldest.length)?;
            if let Some(answered) = self.pending.pop_front() {
                answered.done.with(posted);
            }
        }
        answers.advance(read);
        if self.pending.is_empty() && !answers.is_empty() { Err(unasked()) } else { Ok(()) }
    }

    /// What was written to a connection that broke is written again to the next.
    fn begin_anew(&mut self) {
        let mut left = std::mem::take(&mut self.commands.written);
        for pending in &mut self.pending {
            pending.repeated |= left > 0;
            left = left.saturating_sub(pending.length);
        }
    }

    /// Whoever waited longest gives up first.
    fn forget_given_up(&mut self) {
        let limit = self.writer.client.timeout();
        while let Some(oldest) = self.pending.front()
            && (oldest.done.is_given_up() || oldest.taken.elapsed() >= limit)
        {
            self.commands.bytes.advance(oldest.length);
            self.pending.pop_front();
        }
    }
}

fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer to what was not asked")
}

impl Commands {
    /// Writes all there is; completes only with what broke the connection.
    fn poll_write(&mut self, writes: &mut Writes, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let rest = &self.bytes[self.written..];
            let written = match rest.is_empty() {
                true => ready!(Pin::new(&mut *writes).poll_flush(context)).map(|()| 0),
                false => ready!(Pin::new(&mut *writes).poll_write(context, rest)),
            };
            match written {
                Ok(0) if rest.is_empty() => return Poll::Pending,
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(error),
            }
        }
    }

    /// The oldest so many bytes are answered.
    fn forget(&mut self, length: usize) -> io::Result<()> {
        self.written = self.written.checked_sub(length).ok_or_else(unasked)?;
        self.bytes.advance(length);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }
}

//! Publishes all messages of a node over one connection, from one task that encodes and numbers them as it writes them.
//!
//! Commands are pipelined: the task writes on while Redis answers earlier ones. Commands that were not answered when a
//! connection broke are sent again over the next one, with the same bytes in the same order. A receiver that got a
//! message the first time recognises its sequence number and drops it. So if the second PUBLISH finds no receiver, the
//! first one may still have found some.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{BackendError, Clock, NodeMessage, Posted, SendGuard};
use phalanx_core::{Generation, bound_reached};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use crate::client::RedisClient;
use crate::clock::RedisClock;
use crate::current_generation::CurrentGeneration;
use crate::envelope::{Draft, EnvelopeSender, EnvelopeWriter};
use crate::failover;
use crate::keys::Keys;
use crate::raw_connection::{RawConnection, Writes};
use crate::resp::{self, RespItems};

mod pending;

use pending::{Completion, PendingPublish, PublishReply};

/// The length of the queue to the task. Beyond it publishers wait, at most for the timeout of a command.
const QUEUE: usize = 1024;

/// The most messages that are encoded and not yet answered by Redis.
const MAX_PENDING: usize = 128;

/// The most messages in one write. Few enough that Redis is not idle while the task encodes them.
const BATCH: usize = 16;

/// The capacity of the command buffer that is kept while the buffer is empty.
const RETAINED_CAPACITY: usize = 64 * 1024;

/// The longest text in a reply: the only one is `QUEUED`.
const MAX_REPLY_TEXT: usize = 64;

/// The pause before a reconnect.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// Hands messages to the task that publishes them.
#[derive(Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<PublishJob>,
    timeout: Duration,
}

struct PublishJob {
    channel: String,
    content: PublishContent,
    /// The generation that is looked up in the same write.
    recipient: Option<Generation>,
    completion: Completion,
}

enum PublishContent {
    /// An envelope for our nodes.
    Envelope(Draft),
    /// An envelope for our nodes, and in the same transaction a message for Actionhero nodes: its channel and its text.
    EnvelopeAndInterop(Draft, String, Vec<u8>),
    /// A message for Actionhero nodes.
    Interop(Vec<u8>),
}

/// The parts that the task works with.
pub(crate) struct PublisherParts {
    pub(crate) client: RedisClient,
    pub(crate) keys: Keys,
    pub(crate) envelopes: EnvelopeWriter,
    pub(crate) clock: Arc<RedisClock>,
    pub(crate) node: String,
    pub(crate) current: CurrentGeneration,
}

impl Publisher {
    /// Creates a publisher and its task, which runs until the last clone of the publisher is dropped.
    pub(crate) fn new(parts: PublisherParts) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let timeout = parts.client.timeout();
        (Self { jobs, timeout }, PublisherTask::new(parts).run(queue))
    }

    /// Publishes a message and looks up its recipient in the same write.
    pub(crate) async fn publish(
        &self,
        channel: String,
        draft: Draft,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        self.submit(channel, PublishContent::Envelope(draft), recipient).await
    }

    /// Publishes a message for our nodes and one for Actionhero nodes in one transaction, so that all nodes receive all
    /// messages in the same order.
    pub(crate) async fn publish_both(
        &self,
        channel: String,
        draft: Draft,
        interop: (String, Vec<u8>),
    ) -> Result<(), BackendError> {
        self.submit(channel, PublishContent::EnvelopeAndInterop(draft, interop.0, interop.1), None).await.map(drop)
    }

    /// Publishes a message for Actionhero nodes.
    pub(crate) async fn publish_interop(&self, channel: String, message: Vec<u8>) -> Result<(), BackendError> {
        self.submit(channel, PublishContent::Interop(message), None).await.map(drop)
    }

    /// Publishes a node message whose outcome the caller does not need, if the queue has a free slot. Drops `guard`
    /// once Redis has the message.
    pub(crate) fn try_publish(
        &self,
        channel: String,
        message: NodeMessage,
        guard: SendGuard,
    ) -> Result<(), (NodeMessage, SendGuard)> {
        let Ok(slot) = self.jobs.try_reserve() else { return Err((message, guard)) };
        let content = PublishContent::Envelope(Draft::NodeMessage(message));
        slot.send(PublishJob { channel, content, recipient: None, completion: Completion::DropGuard(guard) });
        Ok(())
    }

    async fn submit(
        &self,
        channel: String,
        content: PublishContent,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        let (done, posted) = oneshot::channel();
        if self.jobs.capacity() == 0 {
            bound_reached("bus.publisher_queue");
        }
        let publishing = async {
            let closed = || BackendError::unavailable("the bus is closed");
            let job = PublishJob { channel, content, recipient, completion: Completion::Notify(done) };
            self.jobs.send(job).await.map_err(|_| closed())?;
            posted.await.map_err(|_| closed())?
        };
        match timeout(self.timeout, publishing).await {
            Ok(posted) => posted,
            Err(_) => Err(BackendError::unavailable("redis did not answer a publish in time")),
        }
    }
}

struct PublisherTask {
    parts: PublisherParts,
    /// The key of the hash of names, in which recipients are looked up.
    names_key: String,
    /// The generation that `seq` counts for.
    numbered: Option<Generation>,
    seq: u64,
    /// The messages that Redis has not answered, the oldest first.
    pending: VecDeque<PendingPublish>,
    commands: CommandBuffer,
}

/// The commands of all pending messages.
#[derive(Default)]
struct CommandBuffer {
    bytes: BytesMut,
    /// The number of bytes that were written to the connection.
    written: usize,
}

impl PublisherTask {
    fn new(parts: PublisherParts) -> Self {
        let (pending, commands) = Default::default();
        Self { names_key: parts.keys.names(), parts, numbered: None, seq: 0, pending, commands }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<PublishJob>) {
        let mut jobs = Vec::with_capacity(MAX_PENDING);
        loop {
            if self.pending.is_empty() {
                if queue.recv_many(&mut jobs, MAX_PENDING).await == 0 {
                    return;
                }
                self.accept(&mut jobs);
                continue;
            }
            let moves = self.parts.client.failover().moves(); // before the connection, which may be opened to the old server
            let broken = match self.parts.client.raw_connection().await {
                Ok(connection) => self.serve(connection, moves, &mut queue).await,
                Err(error) => Some(error),
            };
            let Some(error) = broken else { return };
            debug!(%error, "the publisher's connection to redis broke off");
            self.rewind();
            sleep(RECONNECT_DELAY).await;
            self.drop_expired();
        }
    }

    /// Writes and reads until the connection breaks, and returns the error; `None` if all publishers are dropped.
    async fn serve(
        &mut self,
        connection: RawConnection,
        mut moves: watch::Receiver<u64>,
        queue: &mut mpsc::Receiver<PublishJob>,
    ) -> Option<io::Error> {
        let RawConnection { mut reads, mut writes } = connection;
        let (mut jobs, mut replies) = (Vec::with_capacity(MAX_PENDING), BytesMut::with_capacity(4096));
        let limit = self.parts.client.timeout();
        let mut ticks = interval((limit / 4).max(RECONNECT_DELAY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_reply = Instant::now();
        loop {
            let free = MAX_PENDING - self.pending.len();
            tokio::select! {
                biased;
                read = reads.read_buf(&mut replies) => match read {
                    Ok(0) => return Some(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => match self.complete(&mut replies) {
                        Ok(()) => last_reply = Instant::now(),
                        Err(error) => return Some(error),
                    },
                    Err(error) => return Some(error),
                },
                error = poll_fn(|context| self.commands.poll_write(&mut writes, context)) => return Some(error),
                count = queue.recv_many(&mut jobs, free.min(BATCH)), if free > 0 => {
                    if count == 0 {
                        return None;
                    }
                    if count < BATCH {
                        // Other tasks that are about to publish run first, so that their messages join this write.
                        yield_now().await;
                        jobs.extend(iter::from_fn(|| queue.try_recv().ok()).take(free.min(BATCH) - count));
                    }
                    self.accept(&mut jobs);
                }
                error = failover::moved(&mut moves) => return Some(error),
                _ = ticks.tick() => if self.waiting_since(last_reply).is_some_and(|since| since.elapsed() >= limit) {
                    return Some(io::ErrorKind::TimedOut.into());
                },
            }
        }
    }

    /// The time since which the oldest pending message waits without any reply on this connection; `None` if none is
    /// pending.
    fn waiting_since(&self, last_reply: Instant) -> Option<Instant> {
        self.pending.front().map(|oldest| oldest.accepted_at.max(last_reply))
    }

    /// Encodes and numbers messages. Under a new generation the numbers start with 1 again.
    fn accept(&mut self, jobs: &mut Vec<PublishJob>) {
        // Their callers have timed out or were dropped and count on an unknown outcome; these are never sent.
        jobs.retain(|job| !job.completion.is_cancelled());
        let Some(generation) = self.parts.current.get() else {
            let unregistered = || BackendError::unavailable("the node has no generation yet");
            return jobs.drain(..).for_each(|job| job.completion.complete(Err(unregistered())));
        };
        if self.numbered.replace(generation) != Some(generation) {
            self.seq = 0;
        }
        let (now, at_ms) = (Instant::now(), self.parts.clock.now_ms());
        for job in jobs.drain(..) {
            self.encode(generation, now, at_ms, job);
        }
    }

    fn encode(&mut self, generation: Generation, accepted_at: Instant, at_ms: u64, job: PublishJob) {
        let out = &mut self.commands.bytes;
        let before = out.len();
        let mut envelope = |draft| {
            self.seq += 1;
            let sender = EnvelopeSender { generation, node: &self.parts.node, at_ms, seq: self.seq };
            self.parts.envelopes.write(&job.channel, sender, draft)
        };
        let publish = |out: &mut BytesMut, channel: &str, message: &[u8]| {
            resp::write(out, [b"PUBLISH", channel.as_bytes(), message].into_iter());
        };
        match &job.content {
            PublishContent::Envelope(draft) => publish(out, &job.channel, &envelope(draft)),
            PublishContent::Interop(message) => publish(out, &job.channel, message),
            PublishContent::EnvelopeAndInterop(draft, channel, message) => {
                resp::write(out, [&b"MULTI"[..]].into_iter());
                publish(out, &job.channel, &envelope(draft));
                publish(out, channel, message);
                resp::write(out, [&b"EXEC"[..]].into_iter());
            }
        }
        if let Some(recipient) = job.recipient {
            let name = recipient.as_str().as_bytes();
            resp::write(out, [b"HEXISTS", self.names_key.as_bytes(), name].into_iter());
        }
        self.pending.push_back(PendingPublish {
            completion: job.completion,
            accepted_at,
            length: out.len() - before,
            is_transaction: matches!(job.content, PublishContent::EnvelopeAndInterop(..)),
            has_lookup: job.recipient.is_some(),
            is_repeated: false,
        });
    }

    /// Completes the messages that Redis has answered.
    fn complete(&mut self, replies: &mut BytesMut) -> io::Result<()> {
        let mut items = RespItems::new(replies, MAX_REPLY_TEXT);
        let mut read = 0;
        while let Some(oldest) = self.pending.front() {
            let posted = match oldest.read(&mut items, &self.names_key) {
                PublishReply::Complete(posted) => posted,
                PublishReply::Incomplete => break,
                PublishReply::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            };
            if let Err(error) = &posted {
                self.parts.client.record_refusal(error);
            }
            read = items.read();
            self.commands.remove(oldest.length)?;
            if let Some(answered) = self.pending.pop_front() {
                answered.completion.complete(posted);
            }
        }
        replies.advance(read);
        if self.pending.is_empty() && !replies.is_empty() { Err(unexpected_reply()) } else { Ok(()) }
    }

    /// Prepares all pending commands for the next connection. Those of which a byte was written count as repeated.
    fn rewind(&mut self) {
        let mut written = std::mem::take(&mut self.commands.written);
        for pending in &mut self.pending {
            pending.is_repeated |= written > 0;
            written = written.saturating_sub(pending.length);
        }
    }

    /// Drops the oldest messages, as far as they have timed out or their callers no longer wait.
    fn drop_expired(&mut self) {
        let limit = self.parts.client.timeout();
        while let Some(oldest) = self.pending.front()
            && (oldest.completion.is_cancelled() || oldest.accepted_at.elapsed() >= limit)
        {
            self.commands.bytes.advance(oldest.length);
            self.pending.pop_front();
        }
    }
}

fn unexpected_reply() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a reply without a command")
}

impl CommandBuffer {
    /// Writes and flushes; returns `Pending` when everything is written, and completes only with an error.
    fn poll_write(&mut self, writes: &mut Writes, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let rest = &self.bytes[self.written..];
            let written = if rest.is_empty() {
                ready!(Pin::new(&mut *writes).poll_flush(context)).map(|()| 0)
            } else {
                ready!(Pin::new(&mut *writes).poll_write(context, rest))
            };
            match written {
                Ok(0) if rest.is_empty() => return Poll::Pending,
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(error),
            }
        }
    }

    /// Removes the oldest `length` bytes, whose commands were answered.
    fn remove(&mut self, length: usize) -> io::Result<()> {
        self.written = self.written.checked_sub(length).ok_or_else(unexpected_reply)?;
        self.bytes.advance(length);
        if self.bytes.is_empty() && self.bytes.capacity() > RETAINED_CAPACITY {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }
}

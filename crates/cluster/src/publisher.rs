//! Publishes all messages of a node over one connection, from one task that encodes and numbers them as it writes them.
//!
//! Commands are pipelined: the task writes on while Redis answers earlier ones. When a connection breaks, some that were
//! written are not answered, and Redis may have run them or may yet:
//!
//! - A room message is not repeated. Repeated, it would have two places among the messages of the other nodes: members
//!   that subscribed in between would receive it behind messages that all others received after it. Its outcome is
//!   unknown.
//! - A message of a node (a call, a reply, a topic) and a presence change are sealed again under their number. A receiver
//!   that got one the first time recognises the number and drops it. So if the second PUBLISH finds no receiver, the
//!   first one may still have found some.
//!
//! Messages that were not written yet wait for the next connection, no longer than a command may take.
//!
//! Messages to rooms and tags are published by a script that begins with a write (`bus/publish.lua`), the consecutive ones of one
//! write by one call. After a switch-over the old server, which left the connections open, is a replica. A PUBLISH it would
//! carry out, and answer, although the nodes that moved already do not receive it; the script it refuses. Nothing ran then,
//! so the messages of the call wait for the next connection, as do those for which Redis has lost the script.
//!
//! A room message is published only while this node is subscribed, and counts as published only if the same session still
//! stands when Redis has answered: then its sender receives it, or the gap after it. A look at the time of the answer
//! alone would let a session pass that began, with its gap, after the message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::{FutureExt, TryFutureExt};
use phalanx_core::backend::{BackendError, Clock, NodeMessage, Posted, Publication, SendGuard, TagMessage};
use phalanx_core::{Generation, bound_reached};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use crate::client::RedisClient;
use crate::clock::RedisClock;
use crate::current_generation::CurrentGeneration;
use crate::envelope::{EnvelopeSender, EnvelopeWriter};
use crate::failover;
use crate::keys::Keys;
use crate::link::{self, Hello, PublisherLink};
use crate::raw_connection::RawConnection;
use crate::refusals::{self, RefusalMeaning};
use crate::resp::{RespError, RespItems};

mod commands;
mod encoder;
mod pending;

use commands::{CommandBuffer, Written};
use encoder::{CommandEncoder, FixedParts};
pub(crate) use pending::InteropCopy;
use pending::{Completion, PendingPublish, PublishContent, PublishJob, Published};

/// The length of the queue to the task. Beyond it publishers wait, at most for the timeout of a command.
const QUEUE: usize = 1024;

/// The most messages that are encoded and not yet answered by Redis.
const MAX_PENDING: usize = 128;

/// The most messages that wait for a connection or a subscription. Beyond it they wait in the queue.
const MAX_WAITING: usize = 1024;

/// The most messages in one write. Few enough that Redis is not idle while the task encodes them.
const BATCH: usize = 16;

/// The longest text in a reply; there should be none.
const MAX_REPLY_TEXT: usize = 64;

/// The pause before a reconnect.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// Hands messages to the task that publishes them.
#[derive(Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<PublishJob>,
    timeout: Duration,
}

/// The parts that the task works with.
pub(crate) struct PublisherParts {
    pub(crate) client: RedisClient,
    pub(crate) keys: Keys,
    pub(crate) envelopes: EnvelopeWriter,
    pub(crate) clock: Arc<RedisClock>,
    pub(crate) node: String,
    pub(crate) current: CurrentGeneration,
    pub(crate) link: PublisherLink,
    /// The session of the subscriber, 0 while there is none.
    pub(crate) session: watch::Receiver<u64>,
}

impl Publisher {
    /// Creates a publisher and its task, which runs until the last clone of the publisher is dropped.
    pub(crate) fn new(parts: PublisherParts) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let timeout = parts.client.timeout();
        (Self { jobs, timeout }, PublisherTask::new(parts).run(queue))
    }

    /// Publishes a message to nodes and looks up its recipient in the same write.
    pub(crate) fn publish(
        &self,
        channel: String,
        message: NodeMessage,
        recipient: Option<Generation>,
    ) -> impl Future<Output = Result<Posted, BackendError>> + Send {
        self.submit(channel, PublishContent::NodeMessage(message), recipient).map_ok(Posted::from)
    }

    /// Publishes a message to a tag; returns how many nodes receive it.
    pub(crate) fn publish_to_tag(
        &self,
        channel: String,
        message: TagMessage,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        self.submit(channel, PublishContent::TagMessage(message), None).map_ok(|published| published.receivers)
    }

    /// Publishes a message to a room, and in the same step one for Actionhero nodes, if there may be any: so all nodes
    /// receive all messages in the same order.
    pub(crate) fn publish_to_room(
        &self,
        channel: String,
        message: Publication,
        interop: Option<InteropCopy>,
    ) -> impl Future<Output = Result<(), BackendError>> + Send {
        self.submit(channel, PublishContent::Publication(message, interop), None).map_ok(drop)
    }

    /// Publishes a message for Actionhero nodes.
    pub(crate) fn publish_interop(
        &self,
        channel: String,
        message: Vec<u8>,
    ) -> impl Future<Output = Result<(), BackendError>> + Send {
        self.submit(channel, PublishContent::Interop(message), None).map_ok(drop)
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
        let content = PublishContent::NodeMessage(message);
        slot.send(PublishJob { channel, content, recipient: None, completion: Completion::DropGuard(guard) });
        Ok(())
    }

    /// Queues a message and awaits its outcome. It is not `async`, so that the message is in its future once only.
    fn submit(
        &self,
        channel: String,
        content: PublishContent,
        recipient: Option<Generation>,
    ) -> impl Future<Output = Result<Published, BackendError>> + Send {
        let (done, published) = oneshot::channel();
        if self.jobs.capacity() == 0 {
            bound_reached("bus.publisher_queue");
        }
        let job = PublishJob { channel, content, recipient, completion: Completion::Notify(done) };
        let publishing = async move {
            let closed = || BackendError::unavailable("the bus is closed");
            self.jobs.reserve().await.map_err(|_| closed())?.send(job);
            published.await.map_err(|_| closed())?
        };
        timeout(self.timeout, publishing).map(|published| {
            published.unwrap_or_else(|_| Err(BackendError::unavailable("redis did not answer a publish in time")))
        })
    }
}

/// Why a connection is no longer served.
enum ServeEnd {
    /// All publishers are dropped.
    Closed,
    /// Everything is answered, and the next connection is to be announced.
    Replace,
    Broken(io::Error),
}

struct PublisherTask {
    parts: PublisherParts,
    fixed: FixedParts,
    /// The number of this connection, or of the last one.
    link: u64,
    /// The generation that it was announced under.
    announced: Option<Generation>,
    /// The connection is to be replaced, since it must be announced anew: no further message is written to it.
    is_ending: bool,
    /// The generation that `seq` counts for.
    numbered: Option<Generation>,
    seq: u64,
    /// The messages that are in no command of this connection, the oldest first: all of them while there is no connection,
    /// room messages while there is no subscription.
    waiting: VecDeque<PendingPublish>,
    /// The messages that Redis has not answered, the oldest first.
    pending: VecDeque<PendingPublish>,
    /// The commands of the pending messages.
    commands: CommandBuffer,
    /// The messages that Redis refused in a way in which it does not refuse the next connection, the oldest first.
    refused: VecDeque<PendingPublish>,
}

impl PublisherTask {
    fn new(parts: PublisherParts) -> Self {
        let (waiting, pending, commands, refused) = Default::default();
        let (link, announced, is_ending, numbered, seq) = Default::default();
        let fixed = FixedParts::new(&parts.keys);
        Self { parts, fixed, link, announced, is_ending, numbered, seq, waiting, pending, commands, refused }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<PublishJob>) {
        let mut jobs = Vec::with_capacity(MAX_PENDING);
        loop {
            if self.waiting.is_empty() && !self.is_ending {
                if queue.recv_many(&mut jobs, MAX_PENDING).await == 0 {
                    return;
                }
                self.accept(&mut jobs);
                continue;
            }
            let end = match self.connect().await {
                Ok((number, connection)) => self.serve(connection, number, &mut queue).await,
                Err(error) => ServeEnd::Broken(error),
            };
            match end {
                ServeEnd::Closed => return,
                ServeEnd::Replace => self.rewind(),
                ServeEnd::Broken(error) => {
                    debug!(%error, "the publisher's connection to redis broke off");
                    self.rewind();
                    sleep(RECONNECT_DELAY).await;
                    self.drop_expired();
                }
            }
        }
    }

    /// Opens the next connection, to the server that commands go to, and announces it; nothing else is written to it before
    /// Redis has answered that. Also returns the number by which it is to be replaced.
    async fn connect(&mut self) -> io::Result<(watch::Receiver<u64>, RawConnection)> {
        self.is_ending = false;
        let number = failover::anchor(&self.parts.client, &self.parts.keys).await.map_err(io::Error::other)?;
        self.parts.link.end_request();
        self.link += 1;
        let names = self.parts.current.all();
        let generation = names.last().ok_or(io::ErrorKind::NotConnected)?;
        let sender =
            EnvelopeSender { generation, node: &self.parts.node, at_ms: self.parts.clock.now_ms(), link: self.link };
        let envelope = self.parts.envelopes.write_hello(&self.parts.keys.all_nodes(), sender, &names);
        let (hello, mut commands) = (Hello { link: self.link, names: &names, envelope: &envelope }, BytesMut::new());
        let replies = link::write_hello(&mut commands, &self.parts.keys, &hello)
            + link::write_load(&mut commands, encoder::PUBLISH);
        let mut connection = self.parts.client.raw_connection().await?;
        let said = timeout(self.parts.client.timeout(), connection.request(&commands, replies)).await?;
        said.inspect_err(|error| self.on_refused_hello(error))?;
        self.announced = Some(*generation);
        self.parts.link.announce(self.link);
        Ok((number, connection))
    }

    /// Writes and reads until the connection breaks, must be replaced, or all publishers are dropped.
    async fn serve(
        &mut self,
        connection: RawConnection,
        mut number: watch::Receiver<u64>,
        queue: &mut mpsc::Receiver<PublishJob>,
    ) -> ServeEnd {
        let RawConnection { mut reads, mut writes } = connection;
        let (mut jobs, mut replies) = (Vec::with_capacity(MAX_PENDING), BytesMut::with_capacity(4096));
        let limit = self.parts.client.timeout();
        let mut ticks = interval((limit / 4).max(RECONNECT_DELAY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_reply = Instant::now();
        // Awaited once: to register anew for each message would cost more than to look.
        let mut replaced = pin!(failover::replaced(&mut number));
        self.seal_waiting();
        loop {
            if self.is_ending && self.pending.is_empty() {
                return ServeEnd::Replace;
            }
            let free = match MAX_PENDING - self.pending.len() {
                _ if self.is_ending => 0,
                free => free.min(MAX_WAITING.saturating_sub(self.waiting.len())),
            };
            tokio::select! {
                biased;
                read = reads.read_buf(&mut replies) => match read {
                    Ok(0) => return ServeEnd::Broken(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => match self.complete(&mut replies) {
                        Ok(()) => {
                            last_reply = Instant::now();
                            if !self.waiting.is_empty() {
                                self.seal_waiting();
                            }
                        }
                        Err(error) => return ServeEnd::Broken(error),
                    },
                    Err(error) => return ServeEnd::Broken(error),
                },
                error = poll_fn(|context| self.commands.poll_write(&mut writes, context)) => return ServeEnd::Broken(error),
                count = queue.recv_many(&mut jobs, free.min(BATCH)), if free > 0 => {
                    if count == 0 {
                        return ServeEnd::Closed;
                    }
                    if count < BATCH {
                        // Other tasks that are about to publish run first, so that their messages join this write.
                        yield_now().await;
                        jobs.extend(iter::from_fn(|| queue.try_recv().ok()).take(free.min(BATCH) - count));
                    }
                    self.accept(&mut jobs);
                    self.seal_waiting();
                }
                error = &mut replaced => return ServeEnd::Broken(error),
                Ok(()) = self.parts.session.changed(), if !self.waiting.is_empty() => self.seal_waiting(),
                _ = ticks.tick() => {
                    self.drop_expired();
                    if self.waiting_since(last_reply).is_some_and(|since| since.elapsed() >= limit) {
                        return ServeEnd::Broken(io::ErrorKind::TimedOut.into());
                    }
                    self.is_ending |= self.parts.link.is_requested();
                }
            }
        }
    }

    /// The time since which the oldest pending message waits without any reply on this connection; `None` if none is
    /// pending.
    fn waiting_since(&self, last_reply: Instant) -> Option<Instant> {
        self.pending.front().map(|oldest| oldest.accepted_at.max(last_reply))
    }

    /// Takes messages off the queue.
    fn accept(&mut self, jobs: &mut Vec<PublishJob>) {
        // Their callers have timed out or were dropped and count on an unknown outcome; these are never sent.
        jobs.retain(|job| !job.completion.is_cancelled());
        if self.parts.current.get().is_none() {
            let unregistered = || BackendError::unavailable("the node has no generation yet");
            return jobs.drain(..).for_each(|job| job.completion.complete(Err(unregistered())));
        }
        let accepted_at = Instant::now();
        self.waiting.extend(jobs.drain(..).map(|job| PendingPublish::new(job, accepted_at)));
    }

    /// Makes commands of the waiting messages, as far as they may be pending. Under a new generation, which a connection
    /// announces first, the numbers start with 1 again.
    fn seal_waiting(&mut self) {
        let Some(generation) = self.parts.current.get() else { return };
        self.is_ending |= self.announced != Some(generation) || self.parts.link.is_requested();
        if self.is_ending {
            return;
        }
        if self.numbered.replace(generation) != Some(generation) {
            self.seq = 0;
        }
        let session = *self.parts.session.borrow_and_update();
        let (first, mut held) = (self.pending.len(), VecDeque::new());
        while self.pending.len() < MAX_PENDING
            && let Some(mut message) = self.waiting.pop_front()
        {
            if session == 0 && message.job.needs_subscription() {
                held.push_back(message);
                continue;
            }
            message.session = session;
            self.pending.push_back(message);
        }
        held.append(&mut self.waiting);
        self.waiting = held;
        self.write_commands(generation, first);
    }

    /// Makes commands of the pending messages from this one on.
    fn write_commands(&mut self, generation: Generation, mut first: usize) {
        let Self { parts, fixed, pending, commands, seq, .. } = self;
        let (at_ms, link) = (parts.clock.now_ms(), self.link);
        let (envelopes, node) = (&parts.envelopes, &*parts.node);
        let mut encoder = CommandEncoder { fixed, envelopes, node, at_ms, link, generation, seq };
        while first < pending.len() {
            let (count, published) = encoder::next_command(pending.range(first..));
            let end = first + count;
            commands.append(count, |out| encoder.write(out, pending.range_mut(first..end), published));
            first = end;
        }
    }

    /// Completes the messages that Redis has answered.
    fn complete(&mut self, replies: &mut BytesMut) -> io::Result<()> {
        let mut items = RespItems::new(replies, MAX_REPLY_TEXT);
        let mut read = 0;
        while let Some(count) = self.commands.oldest() {
            match self.complete_oldest(&mut items, count) {
                Ok(()) => read = items.read(),
                Err(RespError::Incomplete) => break,
                Err(RespError::Malformed) => return Err(unexpected_reply()),
            }
        }
        replies.advance(read);
        if self.pending.is_empty() && !replies.is_empty() { Err(unexpected_reply()) } else { Ok(()) }
    }

    /// Reads the reply to the oldest command, and completes its messages, of which there are so many.
    fn complete_oldest(&mut self, items: &mut RespItems<'_>, count: usize) -> Result<(), RespError> {
        let Some(oldest) = self.pending.front() else { return Err(RespError::Malformed) };
        if oldest.job.size_in_call().is_none() {
            let posted = oldest.read(items, self.fixed.names_key())?;
            self.commands.remove_oldest()?;
            if let Err(error) = &posted {
                self.parts.client.record_refusal(error);
            }
            if let Some(message) = self.pending.pop_front() {
                message.job.completion.complete(posted);
            }
            return Ok(());
        }
        let reply = pending::read_call(items, self.pending.iter_mut().take(count))?;
        self.commands.remove_oldest()?;
        match reply {
            Ok(()) => self.complete_call(count),
            Err(reply) => self.on_refused_call(count, &reply),
        }
        Ok(())
    }

    /// Completes the messages of a call of the script that ran.
    fn complete_call(&mut self, count: usize) {
        // Written again, those that were refused before it would come behind it.
        for message in self.refused.drain(..) {
            let reason = "redis refused it, and not what came after it";
            message.job.completion.complete(Err(BackendError::refused(reason)));
        }
        let session = *self.parts.session.borrow();
        for message in self.pending.drain(..count) {
            let is_missed = message.job.needs_subscription() && message.session != session;
            let missed = || BackendError::unavailable("the subscription to redis broke off meanwhile");
            let posted = message.published();
            message.job.completion.complete(if is_missed { Err(missed()) } else { Ok(posted) });
        }
    }

    /// Nothing of a call ran, or it failed. If another connection may carry it out, its messages wait for that.
    fn on_refused_call(&mut self, count: usize, reply: &str) {
        let is_lost = reply.starts_with("NOSCRIPT "); // and each connection loads the script
        if !is_lost {
            self.parts.client.record_refusal(&refusals::error_of(reply));
        }
        let meaning = RefusalMeaning::of(refusals::error_in_script(reply).unwrap_or(reply));
        if is_lost || meaning == RefusalMeaning::WrongServer {
            self.is_ending = true;
            return self.refused.extend(self.pending.drain(..count));
        }
        for message in self.pending.drain(..count) {
            message.job.completion.complete(Err(refusals::error_of(reply)));
        }
    }

    /// Prepares the next connection. What may have been received and may not be repeated fails as unknown. What is repeated,
    /// under its number, waits before the rest, which is numbered anew.
    fn rewind(&mut self) {
        let (mut repeated, mut again) = (VecDeque::new(), std::mem::take(&mut self.refused));
        again.iter_mut().for_each(|message| message.number = None); // presence that is received twice is recognised as well
        for (count, written) in self.commands.clear() {
            for mut message in self.pending.drain(..count) {
                // Of two commands, the one that publishes is the first.
                let has_run = written == Written::All || (written == Written::Part && message.job.recipient.is_some());
                if !has_run && !message.is_repeated {
                    message.number = None;
                    again.push_back(message);
                } else if message.job.is_repeatable() {
                    message.is_repeated = true;
                    repeated.push_back(message);
                } else {
                    let unknown = BackendError::unavailable("the connection to redis broke off");
                    message.job.completion.complete(Err(unknown));
                }
            }
        }
        repeated.append(&mut again);
        repeated.append(&mut self.waiting);
        self.waiting = repeated;
    }

    /// Has the right server searched if Redis refuses a hello as a wrong one does. If it refuses for a reason that lasts,
    /// such as a missing right, the messages that wait fail with it: none ran, except those that were written before.
    fn on_refused_hello(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::Other {
            return; // the connection broke
        }
        let reply = error.to_string();
        self.parts.client.record_refusal(&BackendError::refused(reply.clone()));
        if RefusalMeaning::of(&reply) != RefusalMeaning::OfCommand {
            return;
        }
        for message in self.waiting.drain(..) {
            let error = if message.is_repeated { BackendError::unavailable } else { BackendError::refused };
            let error = error(reply.clone());
            message.job.completion.complete(Err(error));
        }
    }

    /// Drops the messages that have timed out or whose callers no longer wait.
    fn drop_expired(&mut self) {
        let limit = self.parts.client.timeout();
        self.waiting.retain(|message| !message.job.completion.is_cancelled() && message.accepted_at.elapsed() < limit);
    }
}

fn unexpected_reply() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a reply that belongs to no command")
}

//! The task of one connection: it owns the stream and the running verb; all other code has a handle.
//!
//! Verbs take effect in the order in which they arrive: a frame is decoded once the verb before it has taken effect, or
//! the action before it has started. Writing never waits for a verb, and reading never waits for a client that does not
//! read.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use phalanx_core::action::OnDisconnect;
use phalanx_core::address_rate::{Rate, TokenBucket};
use phalanx_core::bound_reached;
use phalanx_core::connection::{Connection, Frame, OutboxItem};
use phalanx_core::dispatch::{self, CallRequest, Dispatched};
use phalanx_core::error::unknown_action;
use phalanx_core::protocol::CloseReason;
use phalanx_core::verb::{VerbAnswer, run_verb};
use phalanx_core::{ActionError, BoxFuture, CallBody, Caller, Engine, ErrorKind, Registration};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error as StreamError, Message};
use tracing::debug;

use super::frame::{self, ClientRequest};
use super::stream::{FrameStream, reason_of};
use super::write_buffer::WriteBuffer;

/// The number of frames that are read before the outbox is written: the replies to a burst go out in one write.
const READS_IN_A_ROW: u32 = 16;

/// The number of malformed frames in a row that close a connection.
const MALFORMED_IN_A_ROW: u32 = 10;

/// The number of frames over the rate limit within [`REFUSAL_WINDOW`] that close a connection.
const REFUSALS: u32 = 200;
const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

/// The bytes of a reply to a verb that cost as much of the rate as another message: small requests have large replies.
const REPLY_PER_TOKEN: usize = 16 * 1024;

/// The task of a connection. Fields are laid out as they are declared, like those of its [`FrameStream`].
#[repr(C)]
pub(super) struct ConnectionTask {
    connection: Connection,
    /// The running verb, if it did not complete at once.
    verb: Option<BoxFuture<'static, ()>>,
    reads: u32,
    malformed: u32,
    stream: FrameStream,
    engine: Engine,
    caller: Arc<Caller>,
    /// Of the verb that runs, or ran last.
    running_verb: Arc<RunningVerb>,
    rate: Rate,
    bucket: TokenBucket,
    /// The refusals of the current window, and its start.
    refused: (u32, Instant),
    received_close: bool,
}

/// The part of a verb that its reply needs. A connection runs one verb at a time, so this memory serves all of them.
#[derive(Default)]
struct RunningVerb {
    message_id: Mutex<String>,
    /// The size of the reply that was queued; zero if there is none yet.
    bytes: AtomicUsize,
}

impl RunningVerb {
    fn begin(&self, id: &str) {
        let mut message_id = self.message_id();
        message_id.clear();
        message_id.push_str(id);
        self.bytes.store(0, Relaxed);
    }

    fn queue(&self, connection: &Connection, answer: Result<VerbAnswer, ActionError>) {
        let id = self.message_id();
        let reply = within_outbox(connection, &id, frame::verb_reply(&id, connection, answer));
        self.bytes.store(reply.len(), Relaxed);
        connection.queue(reply);
    }

    /// Queues the error that ends the verb, unless it was answered before.
    fn queue_error(&self, connection: &Connection, error: &ActionError) {
        if self.bytes.load(Relaxed) == 0 {
            connection.queue(frame::error(&self.message_id(), error));
        }
    }

    fn message_id(&self) -> MutexGuard<'_, String> {
        self.message_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason for [`ConnectionTask::pump`] to act.
enum PumpEvent {
    Read(Option<Result<Message, StreamError>>),
    VerbDone,
    Close(CloseReason),
}

impl ConnectionTask {
    /// Takes over a connection after its 101; `None` if the listener did not accept it.
    pub(super) fn new(engine: Engine, caller: Caller, upgraded: Upgraded) -> Option<Box<Self>> {
        let connection = caller.connection.clone()?;
        let settings = &engine.config().websocket;
        let rate = Rate { per_second: settings.messages_per_second, burst: settings.message_burst };
        let stream = FrameStream::new(upgraded, settings)?;
        let now = Instant::now();
        Some(Box::new(Self {
            caller: Arc::new(caller),
            bucket: TokenBucket::full(rate, now),
            refused: (0, now),
            verb: None,
            running_verb: Arc::default(),
            received_close: false,
            reads: 0,
            malformed: 0,
            engine,
            connection,
            stream,
            rate,
        }))
    }

    /// Serves the connection until one side ends it, then removes it from its rooms and from the registry.
    pub(super) async fn run(mut self: Box<Self>, registration: Registration) {
        let reason = self.pump().await;
        let verb = self.verb.take(); // it may own what the removal needs, such as a lock
        self.engine.catch_in_place(|| drop(verb));
        debug!(connection = %self.connection.id(), reason = reason.as_str(), "a connection ends");
        self.connection.close(reason);
        // On the heap: otherwise each open connection would reserve the size of these futures, which run once.
        tokio::join!(Box::pin(registration.remove(reason)), Box::pin(self.wind_down(reason)));
    }

    /// Moves frames both ways until there is a reason to close.
    async fn pump(&mut self) -> CloseReason {
        loop {
            match self.next_event().await {
                PumpEvent::VerbDone => {}
                PumpEvent::Close(reason) => return reason,
                PumpEvent::Read(read) => {
                    if let Err(reason) = self.handle_read(read).await {
                        return reason;
                    }
                }
            }
        }
    }

    async fn next_event(&mut self) -> PumpEvent {
        poll_fn(|task| {
            self.connection.register(task.waker());
            loop {
                if let Some(reason) = self.due_close() {
                    return Poll::Ready(PumpEvent::Close(reason));
                }
                if let Some(verb) = &mut self.verb {
                    if verb.as_mut().poll(task).is_ready() {
                        self.verb = None;
                        self.end_verb();
                        return Poll::Ready(PumpEvent::VerbDone);
                    }
                } else if self.reads < READS_IN_A_ROW && !self.connection.is_closing() {
                    let read = self.stream.poll_read(task);
                    if let Err(reason) = self.charge_overhead() {
                        return Poll::Ready(PumpEvent::Close(reason));
                    }
                    if let Poll::Ready(read) = read {
                        self.reads += 1;
                        return Poll::Ready(PumpEvent::Read(read));
                    }
                }
                if let Poll::Ready(Err(_)) = self.poll_write(task) {
                    return Poll::Ready(PumpEvent::Close(CloseReason::Broken));
                }
                let may_be_more = self.reads >= READS_IN_A_ROW;
                self.reads = 0;
                if !may_be_more {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// The reason of a requested close, once it is due: a node that stops waits for the replies to accepted frames.
    fn due_close(&self) -> Option<CloseReason> {
        if !self.connection.is_closing() {
            return None;
        }
        self.connection.closing().filter(|reason| *reason != CloseReason::NodeStops || !self.is_busy())
    }

    /// Writes the outbox, one buffer at a time; ready when the kernel has accepted all of it.
    fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<Result<(), StreamError>> {
        loop {
            ready!(self.stream.poll_flush(task))?;
            let mut buffer = None;
            let next = loop {
                match self.connection.next() {
                    OutboxItem::Frame(frame) => {
                        if !buffer.get_or_insert_with(WriteBuffer::new).add(frame) {
                            break None; // it is full
                        }
                    }
                    next => break Some(next),
                }
            };
            if let Some(buffer) = &buffer {
                self.stream.start_write(buffer, task)?;
            }
            match next {
                None => {}
                Some(OutboxItem::Ping) => {
                    if self.verb.is_some() {
                        // No frames are read while a verb runs, so silence does not mean that the client is dead.
                        self.connection.mark_alive();
                    }
                    self.stream.start_ping(task)?;
                }
                Some(_) => return self.stream.poll_flush(task),
            }
        }
    }

    /// Closes the stream. It runs beside the removal from rooms, whose hooks may be slow, and does not wait for it.
    ///
    /// Sends the rest of the outbox and the close frame, and waits for the client's close frame; if that takes longer
    /// than `websocket.close_timeout`, the connection is reset. A client that sent a close frame gets the reply to it
    /// only.
    async fn wind_down(mut self: Box<Self>, reason: CloseReason) {
        if reason == CloseReason::Broken {
            return self.stream.reset_on_drop();
        }
        let limit = self.engine.config().websocket.close_timeout;
        let close = async {
            if self.received_close {
                return self.stream.reply_to_close().await;
            }
            poll_fn(|task| self.poll_write(task)).await?;
            self.stream.send_close(reason).await
        };
        if !matches!(timeout(limit, close).await, Ok(Ok(()))) {
            self.stream.reset_on_drop();
        }
    }

    /// Whether a frame was accepted that has no reply yet.
    fn is_busy(&self) -> bool {
        self.verb.is_some() || self.connection.pending_actions() > 0
    }

    /// Handles the result of a read.
    async fn handle_read(&mut self, read: Option<Result<Message, StreamError>>) -> Result<(), CloseReason> {
        self.connection.mark_alive();
        match read {
            Some(Ok(Message::Text(text))) => self.submit(&text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                if self.bucket.try_take(self.rate, Instant::now()) { Ok(()) } else { self.count_refusal() }
            }
            Some(Ok(Message::Binary(_))) => Err(CloseReason::Binary),
            Some(Ok(Message::Close(_))) => {
                self.received_close = true;
                Err(CloseReason::ClientLeft)
            }
            None => Err(CloseReason::ClientLeft),
            Some(Err(error)) => {
                let reason = reason_of(&error);
                if reason == CloseReason::TooBig {
                    bound_reached("websocket.max_frame_bytes");
                }
                Err(reason)
            }
        }
    }

    /// Runs the verb or action of a frame, or starts it.
    async fn submit(&mut self, text: &str) -> Result<(), CloseReason> {
        self.connection.mark_spoken();
        let is_within_rate = self.bucket.try_take(self.rate, Instant::now());
        let frame = match frame::decode(text, self.engine.config().websocket.max_message_id_bytes) {
            Ok(frame) => frame,
            Err(malformed) => {
                self.connection.queue(malformed.reply());
                self.malformed += 1;
                if self.malformed == MALFORMED_IN_A_ROW {
                    bound_reached("malformed_frames");
                    return Err(CloseReason::Policy);
                }
                return if is_within_rate { Ok(()) } else { self.count_refusal() };
            }
        };
        self.malformed = 0;
        let made = || format!("\"{}\"", self.engine.next_request_id());
        let id = frame.message_id.map_or_else(|| Cow::Owned(made()), Cow::Borrowed);
        if !is_within_rate {
            let error = ActionError::of(ErrorKind::RateLimited, "too many messages in a second")
                .with_retry_after(Duration::from_secs(1));
            self.connection.queue(frame::error(&id, &error));
            return self.count_refusal();
        }
        match frame.request {
            ClientRequest::Action { name, version, params } => self.start_action(&id, &name, version, params).await,
            ClientRequest::Verb(operation) => {
                let (engine, connection) = (self.engine.clone(), self.connection.clone());
                let reply = self.running_verb.clone();
                reply.begin(&id);
                let name = operation.verb().unwrap_or_default();
                let mut verb: BoxFuture<'static, ()> = Box::pin(async move {
                    run_verb(&engine, &connection, operation, |answer| reply.queue(&connection, answer)).await;
                });
                let first = poll_fn(|task| Poll::Ready(verb.as_mut().poll(task))).await;
                match first {
                    Poll::Ready(()) => self.end_verb(),
                    Poll::Pending => self.verb = Some(self.with_deadline(name, verb)),
                }
            }
            ClientRequest::Invalid(error) => {
                self.connection.queue(frame::error(&id, &error));
            }
        }
        Ok(())
    }

    /// Limits the time of a verb: one that waits for a hook or the bus must not block its connection for ever.
    fn with_deadline(&self, name: &'static str, verb: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let (engine, connection, reply) = (self.engine.clone(), self.connection.clone(), self.running_verb.clone());
        Box::pin(async move {
            let running = engine.shutdown().unfinished(|| format!("verb {name} (connection {})", connection.id()));
            // At the deadline the verb is dropped inside `catch`: values that a hook owns may panic in their drop.
            let ended = engine.catch(async { timeout(engine.hook_deadline(), verb).await }).await;
            running.finish();
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(_)) => ActionError::of(ErrorKind::Timeout, "the verb did not complete in time"),
                Err(panicked) => panicked,
            };
            reply.queue_error(&connection, &error);
        })
    }

    /// Charges for bytes that were read and are part of no message, as for the messages that they could have been.
    fn charge_overhead(&mut self) -> Result<(), CloseReason> {
        for _ in 0..self.stream.take_overhead() {
            if !self.bucket.try_take(self.rate, Instant::now()) {
                self.count_refusal()?;
            }
        }
        Ok(())
    }

    /// Charges for the reply to a verb by its size: the reply is sent in any case, the requests after it may wait. A hook of the
    /// verb may have ended the session.
    fn end_verb(&mut self) {
        self.bucket.charge((self.running_verb.bytes.load(Relaxed) / REPLY_PER_TOKEN) as u32);
        self.connection.close_if_signed_out();
    }

    /// Counts a frame over the rate limit; a client that sends too many of them is closed.
    fn count_refusal(&mut self) -> Result<(), CloseReason> {
        bound_reached("websocket.messages_per_second");
        let now = Instant::now();
        if now.saturating_duration_since(self.refused.1) > REFUSAL_WINDOW {
            self.refused = (0, now);
        }
        self.refused.0 += 1;
        if self.refused.0 < REFUSALS { Ok(()) } else { Err(CloseReason::RateLimited) }
    }

    /// Starts an action; it runs concurrently with the frames that follow.
    async fn start_action(&mut self, id: &str, name: &str, version: Option<u32>, params: phalanx_core::Params) {
        let connection = &self.connection;
        let Some(action) = self.engine.registry().find(name, version) else {
            connection.queue(frame::error(id, &unknown_action()));
            return;
        };
        let Some(permit) = connection.try_acquire_action(self.engine.config().general.simultaneous_actions) else {
            bound_reached("general.simultaneous_actions");
            let error = ActionError::of(ErrorKind::TooManyPending, "you have too many pending requests");
            connection.queue(frame::error(id, &error));
            return;
        };
        let (action, caller, body) = (action.clone(), self.caller.clone(), CallBody::absent());
        let request = CallRequest { action, uri: None, params, body, caller, id: self.engine.next_request_id() };
        match dispatch::start(&self.engine, request).poll_once().await {
            Dispatched::Done(outcome) => {
                drop(permit);
                connection.queue(within_outbox(connection, id, frame::action_reply(id, outcome)));
                connection.close_if_signed_out();
            }
            Dispatched::Pending(running) => {
                let id = id.to_owned();
                self.engine.shutdown().spawn(Box::pin(async move {
                    let outcome = if running.on_disconnect() == OnDisconnect::Cancel {
                        tokio::select! {
                            outcome = running.finish() => outcome,
                            () = permit.connection().closed() => return,
                        }
                    } else {
                        running.finish().await
                    };
                    let connection = permit.connection().clone();
                    let reply = within_outbox(&connection, &id, frame::action_reply(&id, outcome));
                    permit.answer(reply);
                    connection.close_if_signed_out();
                }));
            }
        }
    }
}

/// Returns the reply, or an error instead of one that is larger than the whole outbox.
fn within_outbox(connection: &Connection, id: &str, reply: Frame) -> Frame {
    if connection.fits_outbox(&reply) {
        return reply;
    }
    bound_reached("websocket.outbox_bytes");
    frame::error(id, &ActionError::of(ErrorKind::PayloadTooLarge, "the answer is larger than a socket may be sent"))
}

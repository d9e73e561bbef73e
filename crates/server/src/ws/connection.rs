//! The task of one connection: it owns the wire and the running verb; everybody else holds the handle.
//!
//! Verbs take effect in the order in which they arrive: the next frame is decoded when the one before is submitted.
//! Writing never waits for a verb, and reading never waits for a client that does not read.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use phalanx_core::action::OnDisconnect;
use phalanx_core::bound_reached;
use phalanx_core::connection::{CloseReason, Connection, Frame, Next};
use phalanx_core::dispatch::{self, Request, Started};
use phalanx_core::{ActionError, BoxFuture, Caller, ErrorKind, Node, Seat};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error as WireError, Message};
use tracing::debug;

use super::frame::{self, Ask};
use super::rate_limit::{Bucket, Rate};
use super::stream::{Wire, reason_of};
use super::write_buffer::Batch;

/// How many frames are read before what is queued is written: answers to a burst go out in one write.
const READS_IN_A_ROW: u32 = 16;

/// How many malformed frames in a row a client may send.
const MALFORMED_IN_A_ROW: u32 = 10;

/// How many refusals for rate a client may collect in [`REFUSAL_WINDOW`].
const REFUSALS: u32 = 200;
const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

/// A connection's task. Laid out as it is declared, like its [`Wire`].
#[repr(C)]
pub(super) struct ConnectionTask {
    connection: Connection,
    verb: Option<BoxFuture<'static, ()>>,
    reads: u32,
    malformed: u32,
    wire: Wire,
    node: Node,
    caller: Arc<Caller>,
    /// Whether that verb has been answered.
    answered: Arc<AtomicBool>,
    rate: Rate,
    bucket: Bucket,
    refused: (u32, Instant),
    said_goodbye: bool,
}

/// What happened.
enum Step {
    Read(Option<Result<Message, WireError>>),
    VerbSubmitted,
    Close(CloseReason),
}

impl ConnectionTask {
    /// Takes over a connection whose client was sent its 101; `None` if that is no connection of the listener's.
    pub(super) fn new(node: Node, connection: Connection, upgraded: Upgraded) -> Option<Box<Self>> {
        let settings = &node.config().websocket;
        let rate = Rate { per_second: settings.messages_per_second, burst: settings.message_burst };
        let wire = Wire::new(upgraded, settings)?;
        let now = Instant::now();
        Some(Box::new(Self {
            caller: Arc::new(Caller::socket(connection.clone())),
            bucket: Bucket::full(rate, now),
            refused: (0, now),
            verb: None,
            answered: Arc::default(),
            said_goodbye: false,
            reads: 0,
            malformed: 0,
            node,
            connection,
            wire,
            rate,
        }))
    }

    /// Serves the connection until one side is gone, then takes it out of everything it was in.
    pub(super) async fn run(mut self: Box<Self>, seat: Seat) {
        let reason = self.pump().await;
        let verb = self.verb.take(); // it may hold what leaving needs
        self.node.caught_in_place(|| drop(verb));
        debug!(connection = %self.connection.id(), reason = reason.as_str(), "a connection ends");
        self.connection.close(reason);
        // On the heap: a connection ends once, but has room for its future all its life.
        tokio::join!(Box::pin(seat.remove(reason)), Box::pin(self.wind_down(reason)));
    }

    /// Moves frames both ways until there is a reason to end.
    async fn pump(&mut self) -> CloseReason {
        loop {
            match self.step().await {
                Step::VerbSubmitted => {}
                Step::Close(reason) => return reason,
                Step::Read(read) => match self.take(read).await {
                    Ok(()) => {}
                    Err(reason) => return reason,
                },
            }
        }
    }

    async fn step(&mut self) -> Step {
        poll_fn(|task| {
            self.connection.register(task.waker());
            loop {
                if let Some(reason) = self.asked_to_end() {
                    return Poll::Ready(Step::Close(reason));
                }
                if let Some(verb) = &mut self.verb {
                    if verb.as_mut().poll(task).is_ready() {
                        self.verb = None;
                        return Poll::Ready(Step::VerbSubmitted);
                    }
                } else if self.reads < READS_IN_A_ROW
                    && !self.is_going()
                    && let Poll::Ready(read) = self.wire.poll_read(task)
                {
                    self.reads += 1;
                    return Poll::Ready(Step::Read(read));
                }
                if let Poll::Ready(Err(_)) = self.poll_write(task) {
                    return Poll::Ready(Step::Close(CloseReason::Broken));
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

    /// Why the connection was asked to end, once it may: a node that stops waits for what it accepted.
    fn asked_to_end(&self) -> Option<CloseReason> {
        if !self.is_going() {
            return None;
        }
        self.connection.closing().filter(|reason| *reason != CloseReason::NodeStops || !self.is_busy())
    }

    /// Writes what is queued, as much as fits at a time; ready when all of it is with the kernel.
    fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<Result<(), WireError>> {
        loop {
            ready!(self.wire.poll_flush(task))?;
            let mut batch = None;
            let next = loop {
                match self.connection.next() {
                    Next::Frame(frame) => {
                        if !batch.get_or_insert_with(Batch::new).add(frame) {
                            break None; // it is full
                        }
                    }
                    next => break Some(next),
                }
            };
            if let Some(batch) = &batch {
                self.wire.start(batch, task)?;
            }
            match next {
                None => {}
                Some(Next::Ping) => {
                    if self.verb.is_some() {
                        self.connection.hear(); // nobody listens while a verb runs: silence is not the client's
                    }
                    self.wire.start_ping(task)?;
                }
                Some(_) => return self.wire.poll_flush(task),
            }
        }
    }

    /// Ends the wire, and does not wait for what the connection was in: hooks may take their time.
    ///
    /// Sends what is still queued and the close frame, and waits for the client's: all of it within
    /// `websocket.close_timeout`, else the connection is reset. A client that sent a close frame has it returned.
    async fn wind_down(mut self: Box<Self>, reason: CloseReason) {
        if reason == CloseReason::Broken {
            return self.wire.reset();
        }
        let limit = self.node.config().websocket.close_timeout;
        let goodbye = async {
            if self.said_goodbye {
                return self.wire.return_goodbye().await;
            }
            poll_fn(|task| self.poll_write(task)).await?;
            self.wire.say_goodbye(reason).await
        };
        if !matches!(timeout(limit, goodbye).await, Ok(Ok(()))) {
            self.wire.reset();
        }
    }

    /// Whether something was accepted that has no answer yet.
    fn is_busy(&self) -> bool {
        self.verb.is_some() || self.connection.pending_actions() > 0
    }

    /// Whether nothing more is accepted: the connection was asked to end.
    fn is_going(&self) -> bool {
        self.connection.is_closing()
    }

    async fn take(&mut self, read: Option<Result<Message, WireError>>) -> Result<(), CloseReason> {
        self.connection.hear();
        match read {
            Some(Ok(Message::Text(text))) => self.submit(&text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                if self.bucket.take(self.rate, Instant::now()) { Ok(()) } else { self.count_refusal() }
            }
            Some(Ok(Message::Binary(_))) => Err(CloseReason::Binary),
            Some(Ok(Message::Close(_))) => {
                self.said_goodbye = true;
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

    /// Does what a frame asks, or begins to.
    async fn submit(&mut self, text: &str) -> Result<(), CloseReason> {
        let is_within_rate = self.bucket.take(self.rate, Instant::now());
        let asked = match frame::decode(text, self.node.config().websocket.max_message_id_bytes) {
            Ok(asked) => asked,
            Err(malformed) => {
                self.connection.queue(malformed.answer());
                self.malformed += 1;
                if self.malformed == MALFORMED_IN_A_ROW {
                    bound_reached("malformed_frames");
                    return Err(CloseReason::Policy);
                }
                return if is_within_rate { Ok(()) } else { self.count_refusal() };
            }
        };
        self.malformed = 0;
        let id = asked.message_id.unwrap_or_else(|| format!("\"{}\"", self.node.next_request()).into());
        if !is_within_rate {
            let error = ActionError::of(ErrorKind::RateLimited, "too many messages in a second")
                .with_retry_after(Duration::from_secs(1));
            self.connection.queue(frame::error(&id, &error));
            return self.count_refusal();
        }
        match asked.ask {
            Ok(Ask::Action { name, version, params }) => self.act(id, &name, version, params).await,
            Ok(Ask::Verb(verb)) => {
                let (node, connection) = (self.node.clone(), self.connection.clone());
                let (late_id, answered) = (id.clone(), self.answered.clone());
                answered.store(false, Relaxed);
                let mut verb: BoxFuture<'static, ()> = Box::pin(async move {
                    let answer = |answer| {
                        answered.store(true, Relaxed);
                        connection.queue(held(&connection, &id, frame::verb_answer(&id, &connection, answer)));
                    };
                    verb.run(&node, &connection, answer).await;
                });
                let first = poll_fn(|task| Poll::Ready(verb.as_mut().poll(task))).await;
                self.verb = first.is_pending().then(|| self.with_deadline(late_id, verb));
            }
            Err(error) => {
                self.connection.queue(frame::error(&id, &error));
            }
        }
        Ok(())
    }

    /// A verb that waits for a hook or the bus must not hold up its connection for ever.
    fn with_deadline(&self, id: Arc<str>, verb: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let (node, connection, answered) = (self.node.clone(), self.connection.clone(), self.answered.clone());
        Box::pin(async move {
            // The verb is dropped in here at its deadline, and what a hook holds may panic then.
            let ended = node.caught(async { timeout(node.hook_deadline(), verb).await }).await;
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(_)) => ActionError::of(ErrorKind::Timeout, "the verb did not take effect in time"),
                Err(panicked) => panicked,
            };
            if !answered.load(Relaxed) {
                connection.queue(frame::error(&id, &error));
            }
        })
    }

    /// Counts a frame that came too soon; a client that goes on and on is closed.
    fn count_refusal(&mut self) -> Result<(), CloseReason> {
        bound_reached("websocket.messages_per_second");
        let now = Instant::now();
        if now.saturating_duration_since(self.refused.1) > REFUSAL_WINDOW {
            self.refused = (0, now);
        }
        self.refused.0 += 1;
        if self.refused.0 < REFUSALS { Ok(()) } else { Err(CloseReason::RateLimited) }
    }

    /// Starts an action; it goes on beside the frames that follow.
    async fn act(&mut self, id: Arc<str>, name: &str, version: Option<u32>, params: phalanx_core::Params) {
        let connection = &self.connection;
        let Some(action) = self.node.registry().find(name, version) else {
            connection.queue(frame::error(&id, &dispatch::unknown_action()));
            return;
        };
        let Some(place) = connection.begin_action(self.node.config().general.simultaneous_actions) else {
            bound_reached("general.simultaneous_actions");
            let error = ActionError::of(ErrorKind::TooManyPending, "you have too many pending requests");
            connection.queue(frame::error(&id, &error));
            return;
        };
        let caller = self.caller.clone();
        let request = Request { action: action.clone(), params, caller, id: self.node.next_request() };
        match dispatch::start(&self.node, request).await {
            Started::Done(outcome) => {
                drop(place);
                connection.queue(held(connection, &id, frame::action_answer(&id, outcome)));
            }
            Started::Running(running) => {
                self.node.shutdown().spawn(Box::pin(async move {
                    let outcome = if running.on_disconnect() == OnDisconnect::Cancel {
                        tokio::select! {
                            outcome = running.finish() => outcome,
                            () = place.connection().gone() => return,
                        }
                    } else {
                        running.finish().await
                    };
                    let answer = held(place.connection(), &id, frame::action_answer(&id, outcome));
                    place.answer(answer);
                }));
            }
        }
    }
}

/// An answer that the connection may be sent; in place of one that is too large, what says so.
fn held(connection: &Connection, id: &str, answer: Frame) -> Frame {
    if connection.could_hold(&answer) {
        return answer;
    }
    bound_reached("websocket.outbox_bytes");
    frame::error(id, &ActionError::of(ErrorKind::PayloadTooLarge, "the answer is larger than a socket may be sent"))
}

//! The task of one connection: it owns the wire and the running verb; everybody else holds the handle.
//!
//! Verbs take effect in the order in which they arrive: the next frame is decoded when the one before is submitted.
//! Writing never waits for a verb, and reading never waits for a client that does not read.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use phalanx_core::action::OnDisconnect;
use phalanx_core::connection::{CloseReason, Connection, Frame, Next};
use phalanx_core::dispatch::{self, Request, Started};
use phalanx_core::{ActionError, BoxFuture, Caller, ErrorKind, Node};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Error as WireError;
use tracing::debug;

use super::frame::{self, Ask};
use super::rate::{Bucket, Rate};

/// How many frames are read before what is queued is written: answers to a burst go out in one write.
const READS_IN_A_ROW: u32 = 16;

/// How many malformed frames in a row a client may send.
const MALFORMED_IN_A_ROW: u32 = 10;

/// How many refusals for rate a client may collect in [`REFUSAL_WINDOW`].
const REFUSALS: u32 = 200;
const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

/// A connection's task.
pub(super) struct ConnectionTask {
    node: Node,
    connection: Connection,
    caller: Arc<Caller>,
    wire: WebSocket,
    /// Set when the connection must not linger in the kernel once the wire is dropped.
    reset: Arc<AtomicBool>,
    verb: Option<BoxFuture<'static, ()>>,
    reads: u32,
    malformed: u32,
    rate: Rate,
    bucket: Bucket,
    refused: (u32, Instant),
}

/// What happened.
enum Step {
    Read(Option<Result<Message, axum::Error>>),
    VerbSubmitted,
    WriteFailed,
    Close(CloseReason),
    Woken,
}

impl ConnectionTask {
    pub(super) fn new(node: Node, connection: Connection, wire: WebSocket, reset: Arc<AtomicBool>) -> Self {
        let settings = &node.config().websocket;
        let rate = Rate { per_second: settings.messages_per_second, burst: settings.message_burst };
        let now = Instant::now();
        Self {
            caller: Arc::new(Caller::socket(connection.clone())),
            bucket: Bucket::full(rate, now),
            refused: (0, now),
            verb: None,
            reads: 0,
            malformed: 0,
            node,
            connection,
            wire,
            reset,
            rate,
        }
    }

    /// Serves the connection until one side is gone, then takes it out of everything it was in.
    pub(super) async fn run(mut self) {
        self.connection.queue(frame::welcome(&self.node, &self.connection));
        let reason = self.pump().await;
        debug!(connection = %self.connection.id(), reason = reason.as_str(), "a connection ends");
        self.connection.close(reason);
        let Self { node, connection, wire, reset, .. } = self;
        let leaving = node.connections();
        let leaving = leaving.remove(&connection, reason);
        let limit = node.config().websocket.close_timeout;
        tokio::join!(leaving, say_goodbye(wire, reason, limit, reset));
    }

    /// Moves frames both ways until there is a reason to end.
    async fn pump(&mut self) -> CloseReason {
        loop {
            match self.step().await {
                Step::Woken | Step::VerbSubmitted => {}
                Step::Close(reason) => return reason,
                Step::WriteFailed => return CloseReason::Broken,
                Step::Read(read) => match self.take(read).await {
                    Ok(()) => {}
                    Err(reason) => return reason,
                },
            }
            if let Some(reason) = self.connection.closing()
                && reason.abandons_outbox()
            {
                return reason;
            }
        }
    }

    async fn step(&mut self) -> Step {
        let connection = self.connection.clone();
        let mut woken = pin!(connection.woken());
        poll_fn(|task| {
            if let Some(verb) = &mut self.verb {
                if verb.as_mut().poll(task).is_ready() {
                    self.verb = None;
                    return Poll::Ready(Step::VerbSubmitted);
                }
            } else if self.reads < READS_IN_A_ROW
                && !self.is_going()
                && let Poll::Ready(read) = Pin::new(&mut self.wire).poll_next(task)
            {
                self.reads += 1;
                return Poll::Ready(Step::Read(read));
            }
            if let Some(step) = self.write(task) {
                return Poll::Ready(step);
            }
            if self.reads >= READS_IN_A_ROW {
                self.reads = 0;
                return Poll::Ready(Step::Woken);
            }
            self.reads = 0;
            woken.as_mut().poll(task).map(|()| Step::Woken)
        })
        .await
    }

    /// Writes what is queued as far as the wire takes it, in one flush.
    fn write(&mut self, task: &mut Task<'_>) -> Option<Step> {
        let is_busy = self.is_busy();
        let mut wire = Pin::new(&mut self.wire);
        loop {
            match wire.as_mut().poll_ready(task) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(Step::WriteFailed),
                Poll::Ready(Ok(())) => {}
            }
            let message = match self.connection.next() {
                Next::Frame(frame) => message_of(frame),
                Next::Ping => Message::Ping(Bytes::new()),
                Next::Close(CloseReason::NodeStops) if is_busy => break,
                Next::Close(reason) => return Some(Step::Close(reason)),
                Next::Nothing => break,
            };
            if wire.as_mut().start_send(message).is_err() {
                return Some(Step::WriteFailed);
            }
        }
        match wire.poll_flush(task) {
            Poll::Ready(Err(_)) => Some(Step::WriteFailed),
            Poll::Ready(Ok(())) | Poll::Pending => None,
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

    async fn take(&mut self, read: Option<Result<Message, axum::Error>>) -> Result<(), CloseReason> {
        self.connection.hear();
        match read {
            Some(Ok(Message::Text(text))) => self.submit(&text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(CloseReason::Binary),
            Some(Ok(Message::Close(_))) | None => Err(CloseReason::ClientLeft),
            Some(Err(error)) => Err(reason_of(error)),
        }
    }

    /// Does what a frame asks, or begins to.
    async fn submit(&mut self, text: &str) -> Result<(), CloseReason> {
        let asked = match frame::decode(text, self.node.config().websocket.max_message_id_bytes) {
            Ok(asked) => asked,
            Err(error) => {
                self.malformed += 1;
                self.connection.queue(frame::error_without_id(&error));
                return if self.malformed < MALFORMED_IN_A_ROW { Ok(()) } else { Err(CloseReason::Policy) };
            }
        };
        self.malformed = 0;
        let id = asked.message_id.unwrap_or_else(|| format!("\"{}\"", self.node.next_request()).into());
        if !self.bucket.take(self.rate, Instant::now()) {
            return self.refuse(&id);
        }
        match asked.ask {
            Ok(Ask::Action { name, version, params }) => self.act(id, &name, version, params).await,
            Ok(Ask::Verb(verb)) => {
                let (node, connection) = (self.node.clone(), self.connection.clone());
                let mut verb: BoxFuture<'static, ()> = Box::pin(async move {
                    let answer = |answer| {
                        connection.queue(frame::verb_answer(&id, &connection, answer));
                    };
                    verb.run(&node, &connection, answer).await;
                });
                let first = poll_fn(|task| Poll::Ready(verb.as_mut().poll(task))).await;
                self.verb = first.is_pending().then_some(verb);
            }
            Err(error) => {
                self.connection.queue(frame::error(&id, &error));
            }
        }
        Ok(())
    }

    /// Answers a verb that comes too soon; a client that goes on and on is closed.
    fn refuse(&mut self, id: &str) -> Result<(), CloseReason> {
        let now = Instant::now();
        if now.saturating_duration_since(self.refused.1) > REFUSAL_WINDOW {
            self.refused = (0, now);
        }
        self.refused.0 += 1;
        let error = ActionError::of(ErrorKind::RateLimited, "too many messages in a second")
            .with_retry_after(Duration::from_secs(1));
        self.connection.queue(frame::error(id, &error));
        if self.refused.0 < REFUSALS { Ok(()) } else { Err(CloseReason::RateLimited) }
    }

    /// Starts an action; it goes on beside the frames that follow.
    async fn act(&mut self, id: Box<str>, name: &str, version: Option<u32>, params: phalanx_core::Params) {
        let connection = &self.connection;
        let Some(action) = self.node.registry().find(name, version) else {
            connection.queue(frame::error(&id, &dispatch::unknown_action()));
            return;
        };
        if !connection.begin_action(self.node.config().general.simultaneous_actions) {
            let error = ActionError::of(ErrorKind::TooManyPending, "you have too many pending requests");
            connection.queue(frame::error(&id, &error));
            return;
        }
        let caller = self.caller.clone();
        let request = Request { action: action.clone(), params, caller, id: self.node.next_request() };
        match dispatch::start(&self.node, request).await {
            Started::Done(outcome) => {
                connection.end_action();
                connection.queue(frame::action_answer(&id, outcome));
            }
            Started::Running(running) => {
                let connection = connection.clone();
                let cancel = running.on_disconnect() == OnDisconnect::Cancel;
                self.node.shutdown().spawn(Box::pin(async move {
                    let outcome = if cancel {
                        tokio::select! {
                            outcome = running.finish() => Some(outcome),
                            () = connection.gone() => None,
                        }
                    } else {
                        Some(running.finish().await)
                    };
                    connection.end_action();
                    if let Some(outcome) = outcome {
                        connection.push(frame::action_answer(&id, outcome));
                    }
                }));
            }
        }
    }
}

/// Sends the close frame and waits for the client's, both within `limit`; else the connection is reset.
async fn say_goodbye(mut wire: WebSocket, reason: CloseReason, limit: Duration, reset: Arc<AtomicBool>) {
    if reason == CloseReason::Broken {
        reset.store(true, Relaxed);
        return;
    }
    let goodbye = async {
        let close = CloseFrame { code: reason.code(), reason: Utf8Bytes::from_static(reason.as_str()) };
        wire.send(Message::Close(Some(close))).await?;
        poll_fn(|task| {
            while let Some(Ok(_)) = ready!(Pin::new(&mut wire).poll_next(task)) {}
            Poll::Ready(())
        })
        .await;
        Ok::<_, axum::Error>(())
    };
    if !matches!(timeout(limit, goodbye).await, Ok(Ok(()))) {
        reset.store(true, Relaxed);
    }
}

fn message_of(frame: Frame) -> Message {
    match frame {
        Frame::Text(bytes) => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Text(Utf8Bytes::from_static("{}")),
        },
        Frame::Binary(bytes) => Message::Binary(bytes),
    }
}

fn reason_of(error: axum::Error) -> CloseReason {
    match error.into_inner().downcast::<WireError>().map(|error| *error) {
        Ok(WireError::Capacity(_)) => CloseReason::TooBig,
        Ok(WireError::Utf8(_) | WireError::Protocol(_)) => CloseReason::Policy,
        _ => CloseReason::Broken,
    }
}

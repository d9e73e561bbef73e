//! A WebSocket of a client. Frames are read as they come, and answered are the pings of the node, whatever the test does
//! meanwhile.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use phalanx_core::connection::Frame;
use phalanx_core::{Action, ConnectionId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::app::AppParts;
use super::call::{TestError, decode, fields_of};
use super::frames::FrameLog;
use super::waiting::{ANSWER, CONDITION, FRAME, on_clients};

/// Frames that wait to be sent; beyond, the test waits.
const UNSENT: usize = 64;

/// The time for a close frame to be sent when a socket is dropped.
const GOODBYE: Duration = Duration::from_secs(1);

/// A WebSocket of a client. It closes when this is dropped.
///
/// Each frame that comes is kept until a test takes it: [`expect`](Self::expect) takes the first that matches, whatever came
/// before it, and the replies to requests are taken by these. So two tests of what came in either order are two `expect`s, and
/// [`refute`](Self::refute) looks at all that was not taken.
pub struct TestSocket {
    app: Arc<AppParts>,
    welcome: Value,
    /// The number of the last request.
    requests: u64,
    /// `None` is a close.
    outgoing: mpsc::Sender<Option<String>>,
    frames: Arc<SocketFrames>,
}

/// The frames of a socket, which its task adds.
#[derive(Debug)]
struct SocketFrames {
    log: Mutex<FrameLog>,
    changed: watch::Sender<()>,
}

impl SocketFrames {
    fn log(&self) -> MutexGuard<'_, FrameLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut FrameLog)) {
        change(&mut self.log());
        self.changed.send_replace(());
    }
}

impl TestSocket {
    /// Takes over a connection; waits for the node's welcome.
    pub(super) async fn open(app: Arc<AppParts>, stream: WebSocketStream<TcpStream>) -> Result<Self, String> {
        let (outgoing, to_send) = mpsc::channel(UNSENT);
        let frames = Arc::new(SocketFrames { log: Mutex::default(), changed: watch::Sender::new(()) });
        let own = frames.clone();
        on_clients(async move { drop(tokio::spawn(drive(stream, own, to_send))) }).await;
        let mut socket = Self { app, welcome: Value::Null, requests: 0, outgoing, frames };
        let welcome = socket.take(json!({ "context": "api", "protocol": 1 }), ANSWER).await;
        socket.welcome = welcome.map_err(|reason| format!("no welcome came: {reason}"))?;
        Ok(socket)
    }

    /// The id of the connection.
    pub fn id(&self) -> &str {
        self.welcome["id"].as_str().unwrap_or_default()
    }

    /// The first frame, the node's welcome.
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// Waits for a frame, at most 5 s, and takes it: the first that has all that `frame` has. Of an object that is each of its
    /// fields, of a list as many items, each of which matches; anything else is equal. Returns the whole frame.
    ///
    /// # Panics
    ///
    /// If none comes: with every frame of the socket.
    #[track_caller]
    pub fn expect(&mut self, frame: Value) -> impl Future<Output = Value> + Send + '_ {
        self.expect_within(FRAME, frame)
    }

    /// The same with another limit.
    ///
    /// # Panics
    ///
    /// If none comes: with every frame of the socket.
    #[track_caller]
    pub fn expect_within(&mut self, limit: Duration, frame: Value) -> impl Future<Output = Value> + Send + '_ {
        let place = Location::caller();
        async move {
            let taken = self.take(frame.clone(), limit).await;
            taken.unwrap_or_else(|reason| panic!("{place}: expected {frame}: {reason}"))
        }
    }

    /// Checks that no frame has come that matches, beside those that were taken. It waits for no time, but for a round trip:
    /// once what the nodes have published until now has arrived, and a frame behind it has come to this socket, all frames from
    /// before are there. Effects that nothing waits for, such as those of a job, may come later.
    ///
    /// # Panics
    ///
    /// If one has come: with every frame of the socket; or if the node does not answer.
    #[track_caller]
    pub fn refute(&mut self, frame: Value) -> impl Future<Output = ()> + Send + '_ {
        let place = Location::caller();
        async move {
            if self.frames.log().closed.is_none()
                && let Err(problem) = self.round_trip().await
            {
                panic!("{place}: {problem}{}", self.transcript());
            }
            assert!(!self.frames.log().has(&frame), "{place}: {frame} was not to come{}", self.transcript());
        }
    }

    /// Sends a frame as it is, such as `json!({ "event": "detailsView" })`. Its reply is a frame for [`expect`](Self::expect).
    ///
    /// # Panics
    ///
    /// If the socket has closed.
    #[track_caller]
    pub fn send(&mut self, frame: Value) -> impl Future<Output = ()> + Send + '_ {
        let place = Location::caller();
        async move {
            if self.send_text(frame.to_string()).await.is_err() {
                panic!("{place}: the socket has closed before {frame}{}", self.transcript());
            }
        }
    }

    /// Sends a frame with a `messageId`, and returns the reply to it, which may be an error.
    ///
    /// # Panics
    ///
    /// If none comes within a minute: with every frame of the socket.
    #[track_caller]
    pub fn request(&mut self, frame: Value) -> impl Future<Output = Value> + Send + '_ {
        let place = Location::caller();
        async move {
            let line = frame.to_string();
            self.try_request(frame).await.unwrap_or_else(|reason| panic!("{place}: no reply to {line}: {reason}"))
        }
    }

    /// Joins a room.
    ///
    /// # Panics
    ///
    /// If it is refused: with the reply. [`request`](Self::request) returns a refusal.
    #[track_caller]
    pub fn join(&mut self, room: &str) -> impl Future<Output = ()> + Send + '_ {
        self.done(json!({ "event": "roomAdd", "room": room }))
    }

    /// Leaves a room.
    ///
    /// # Panics
    ///
    /// If it is refused: with the reply.
    #[track_caller]
    pub fn leave(&mut self, room: &str) -> impl Future<Output = ()> + Send + '_ {
        self.done(json!({ "event": "roomLeave", "room": room }))
    }

    /// Publishes a message in a room.
    ///
    /// # Panics
    ///
    /// If it is refused: with the reply.
    #[track_caller]
    pub fn say(&mut self, room: &str, message: impl Serialize) -> impl Future<Output = ()> + Send + '_ {
        let message = serde_json::to_value(message).unwrap_or_else(|error| panic!("the message is no JSON: {error}"));
        self.done(json!({ "event": "say", "room": room, "message": message }))
    }

    /// Calls an action: `socket.call::<set_name>(SetName { … }).await`.
    ///
    /// # Errors
    ///
    /// The action's own, or that of the server.
    ///
    /// # Panics
    ///
    /// If no reply comes within a minute, or it is no `Output`.
    #[track_caller]
    pub fn call<A>(&mut self, input: A::Input) -> impl Future<Output = Result<A::Output, TestError>> + Send + '_
    where
        A: Action<Input: Serialize, Output: DeserializeOwned + 'static>,
    {
        let place = Location::caller();
        let mut params = fields_of(&A::DEF, &input).unwrap_or_else(|problem| panic!("{problem}"));
        drop(input);
        params.insert("action".to_owned(), A::DEF.name.into());
        params.insert("apiVersion".to_owned(), A::DEF.version.into());
        async move {
            let reply = self.try_request(json!({ "event": "action", "params": params })).await;
            let mut reply = reply.unwrap_or_else(|reason| panic!("{place}: no reply of {}: {reason}", A::DEF.name));
            TestError::of_reply(&reply)?;
            if let Value::Object(fields) = &mut reply {
                fields.remove("context");
                fields.remove("messageId");
            }
            Ok(decode(reply).unwrap_or_else(|error| {
                panic!("{place}: the answer of {} is no Output: {error}{}", A::DEF.name, self.transcript())
            }))
        }
    }

    /// Waits until the socket is closed, at most 30 s; returns the code: 1005 for a close frame without one, 1006 if there was
    /// no close frame.
    ///
    /// # Panics
    ///
    /// If it stays open: with every frame of the socket.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = u16> + Send + '_ {
        let place = Location::caller();
        async move {
            let closed = self.wait(CONDITION, |log| log.closed).await;
            closed.unwrap_or_else(|| panic!("{place}: the socket stays open{}", self.transcript()))
        }
    }

    /// Closes the socket as a client does that leaves, and waits for the node's close frame.
    ///
    /// # Panics
    ///
    /// If none comes within 30 s.
    #[track_caller]
    pub fn close(self) -> impl Future<Output = ()> + Send {
        let place = Location::caller();
        async move {
            let _ = self.outgoing.send(None).await; // it may be closed already
            let closed = self.wait(CONDITION, |log| log.closed).await;
            assert!(closed.is_some(), "{place}: the node does not close{}", self.transcript());
        }
    }

    #[track_caller]
    fn done(&mut self, request: Value) -> impl Future<Output = ()> + Send + '_ {
        let place = Location::caller();
        async move {
            let line = request.to_string();
            match self.try_request(request).await {
                Ok(reply) => assert!(reply["status"] == "OK", "{place}: the reply to {line} is {reply}"),
                Err(reason) => panic!("{place}: no reply to {line}: {reason}"),
            }
        }
    }

    /// Waits until everything has come that was on its way: behind it, the node sends a frame of its own, which is none of the
    /// application's and counts against no rate.
    async fn round_trip(&mut self) -> Result<(), String> {
        let app = self.app.clone();
        on_clients(async move { app.nodes.arrived_at(app.node()).await }).await?;
        self.requests += 1;
        let last = json!({ "context": "testing", "number": self.requests });
        let connection = ConnectionId::parse(self.id()).ok().and_then(|id| self.app.node().connections().local(&id));
        if connection.is_some_and(|connection| connection.push(Frame::Text(last.to_string().into()))) {
            let came = self.take(last, ANSWER).await;
            if let Err(reason) = came
                && self.frames.log().closed.is_none()
            {
                return Err(format!("the node does not send: {reason}"));
            }
            return Ok(());
        }
        // The node has closed it: nothing comes behind its close frame.
        match self.wait(CONDITION, |log| log.closed).await {
            Some(_) => Ok(()),
            None => Err("the node has closed the socket, and sends no close frame".to_owned()),
        }
    }

    async fn try_request(&mut self, mut frame: Value) -> Result<Value, String> {
        self.requests += 1;
        let id = format!("test-{}", self.requests);
        frame["messageId"] = id.clone().into();
        if self.send_text(frame.to_string()).await.is_err() {
            return Err(format!("the socket has closed{}", self.transcript()));
        }
        self.take(json!({ "messageId": id, "context": "response" }), ANSWER).await
    }

    async fn send_text(&mut self, text: String) -> Result<(), ()> {
        self.frames.log().add_sent(&text);
        self.outgoing.send(Some(text)).await.map_err(drop)
    }

    /// Takes a frame.
    async fn take(&mut self, pattern: Value, limit: Duration) -> Result<Value, String> {
        let look = move |log: &mut FrameLog| match (log.take(&pattern), log.closed) {
            (Some(frame), _) => Some(Some(frame)),
            (None, Some(_)) => Some(None), // none comes any more
            (None, None) => None,
        };
        match self.wait(limit, look).await {
            Some(Some(frame)) => Ok(frame),
            Some(None) => Err(format!("the socket has closed{}", self.transcript())),
            None => Err(format!("none has come within {limit:?}{}", self.transcript())),
        }
    }

    /// Looks at the frames whenever they change, until there is a result.
    async fn wait<T: Send + 'static>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&mut FrameLog) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let frames = self.frames.clone();
        on_clients(async move {
            let mut changes = frames.changed.subscribe();
            let looking = async {
                loop {
                    let found = look(&mut frames.log());
                    if found.is_some() || changes.changed().await.is_err() {
                        return found;
                    }
                }
            };
            timeout(limit, looking).await.ok().flatten()
        })
        .await
    }

    /// Every frame, and what the application has panicked of, for the message of a failure.
    fn transcript(&self) -> String {
        format!("; the frames of the socket:\n{}{}", self.frames.log(), self.app.panics.note())
    }
}

impl fmt::Debug for TestSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestSocket({})", self.id())
    }
}

/// Reads and writes until the socket ends, or its owner is gone.
async fn drive(
    mut stream: WebSocketStream<TcpStream>,
    frames: Arc<SocketFrames>,
    mut to_send: mpsc::Receiver<Option<String>>,
) {
    let mut code = 1006;
    loop {
        tokio::select! {
            outgoing = to_send.recv() => match outgoing {
                Some(Some(text)) => {
                    let _ = stream.send(Message::text(text)).await; // the next read says how it ended
                }
                Some(None) => {
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    let _ = stream.close(Some(frame)).await;
                }
                None => {
                    let _ = timeout(GOODBYE, stream.close(None)).await;
                    return;
                }
            },
            read = stream.next() => match read {
                Some(Ok(Message::Text(text))) => frames.change(|log| log.add_received(&text)),
                Some(Ok(Message::Close(frame))) => code = frame.map_or(1005, |frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    return frames.change(|log| log.closed = Some(code));
                }
            },
        }
    }
}

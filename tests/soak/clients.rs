//! Members of rooms: they say numbered messages, join, leave and reconnect, and record all that they send and receive.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::history::{Change, Event, Recorder};
use crate::schedule::Random;

/// Most requests of a socket that are not answered yet; no more are sent until one is.
const PENDING: usize = 64;

/// A join or leave that was refused is tried again after this.
const AGAIN: Duration = Duration::from_millis(200);

/// A limit for a connection to a node, and for its close.
const SOON: Duration = Duration::from_secs(3);

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What members do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They say messages; the restless ones join, leave and reconnect.
    Talk,
    /// They join all that they want to be in, and say nothing.
    Settle,
    /// They say one last message in each room.
    Last,
    Over,
}

/// One member, which has one socket after the other on one node.
pub(crate) struct Member {
    pub(crate) node: usize,
    pub(crate) addr: watch::Receiver<SocketAddr>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) rooms: Vec<String>,
    /// Whether it joins, leaves and reconnects.
    pub(crate) is_restless: bool,
    pub(crate) random: Random,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) sockets: Arc<AtomicUsize>,
}

impl Member {
    pub(crate) async fn run(mut self) {
        while *self.phase.borrow() != Phase::Over {
            let addr = *self.addr.borrow_and_update();
            match timeout(SOON, tokio_tungstenite::connect_async(format!("ws://{addr}/ws"))).await {
                Ok(Ok((stream, _))) => self.session(stream).await,
                // The node is down, frozen or about to start again.
                Ok(Err(_)) | Err(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn session(&mut self, mut stream: Stream) {
        let Ok(Some(Ok(Message::Text(welcome)))) = timeout(SOON, stream.next()).await else { return };
        let welcome: Value = serde_json::from_str(&welcome).unwrap();
        let (socket, id) = (self.sockets.fetch_add(1, Relaxed), welcome["id"].as_str().unwrap().to_owned());
        self.recorder.record(Event::Open { socket, node: self.node, id });
        let mut session = Session {
            socket,
            stream,
            recorder: self.recorder.clone(),
            rooms: self.rooms.iter().map(|room| (room.clone(), Membership::new())).collect(),
            pending: HashMap::new(),
            last_id: 0,
            has_said_last: false,
        };
        let ends = self.is_restless.then(|| Instant::now() + self.random.millis(3000..15_000));
        let code = loop {
            let next = Instant::now() + self.random.millis(100..300);
            if let ControlFlow::Break(code) = session.receive_until(next).await {
                break code;
            }
            let phase = *self.phase.borrow();
            let mut sent = session.keep_membership(phase == Phase::Talk).await;
            match phase {
                Phase::Talk => {
                    if ends.is_some_and(|ends| ends < next) {
                        break session.close(self.random.is_one_in(2)).await;
                    }
                    if self.is_restless && self.random.is_one_in(10) {
                        session.change_wish(self.random.below(self.rooms.len()));
                    }
                    let room = self.random.below(self.rooms.len());
                    sent = sent.and(session.say(room, false).await);
                }
                Phase::Settle => session.want_all(),
                Phase::Last if !session.has_said_last => {
                    session.has_said_last = true;
                    for room in 0..self.rooms.len() {
                        sent = sent.and(session.say(room, true).await);
                    }
                }
                Phase::Last => {}
                Phase::Over => return,
            }
            if sent.is_err() {
                break None;
            }
        };
        self.recorder.record(Event::Closed { socket, code });
    }
}

struct Membership {
    is_wanted: bool,
    is_in: bool,
    /// A join or a leave is not answered yet.
    is_pending: bool,
    /// When to try again after a refusal.
    again: Instant,
}

impl Membership {
    fn new() -> Self {
        Self { is_wanted: true, is_in: false, is_pending: false, again: Instant::now() }
    }
}

enum Request {
    Join(String),
    Leave(String),
    Say(String),
}

type Sent = Result<(), tokio_tungstenite::tungstenite::Error>;

struct Session {
    socket: usize,
    stream: Stream,
    recorder: Arc<Recorder>,
    rooms: BTreeMap<String, Membership>,
    /// By message id.
    pending: HashMap<u64, Request>,
    last_id: u64,
    has_said_last: bool,
}

impl Session {
    /// Receives frames until this time; breaks with the code of the close frame if the socket ends.
    async fn receive_until(&mut self, until: Instant) -> ControlFlow<Option<u16>> {
        loop {
            let next = tokio::select! {
                next = self.stream.next() => next,
                () = sleep_until(until) => return ControlFlow::Continue(()),
            };
            match next {
                Some(Ok(Message::Text(text))) => self.receive(&serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => {
                    return ControlFlow::Break(close.map(|close| CloseCode::into(close.code)));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return ControlFlow::Break(None),
            }
        }
    }

    fn receive(&mut self, frame: &Value) {
        let (socket, text) = (self.socket, |key: &str| frame[key].as_str().unwrap_or_default().to_owned());
        match (frame["context"].as_str(), frame["event"].as_str()) {
            (Some("response"), _) => self.receive_answer(frame),
            // The server's own messages, such as the one that a room was destroyed, are in no promise.
            (Some("user"), _) if frame["from"] == "0" => {}
            (Some("user"), _) => {
                self.recorder.record(Event::Received { socket, room: text("room"), text: text("message") });
            }
            (Some("presence"), Some(event)) => {
                let change = if event == "join" { Change::Join } else { Change::Leave };
                // One message for each, or for many that one node lists again.
                let many = frame["members"].as_array().into_iter().flatten().filter_map(Value::as_str);
                for member in frame["member"].as_str().into_iter().chain(many) {
                    let (room, member) = (text("room"), member.to_owned());
                    self.recorder.record(Event::Presence { socket, room, change, member });
                }
            }
            (Some("api"), Some("gap")) => self.recorder.record(Event::Gap { socket, room: text("room") }),
            (Some("api"), Some("away")) => self.recorder.record(Event::Away { socket }),
            _ => {}
        }
    }

    fn receive_answer(&mut self, frame: &Value) {
        let Some(request) = frame["messageId"].as_u64().and_then(|id| self.pending.remove(&id)) else { return };
        let (socket, code) = (self.socket, frame["error"]["code"].as_str());
        match request {
            Request::Say(text) => {
                self.recorder.record(Event::Answered { socket, text, code: code.map(str::to_owned) });
            }
            // An earlier try that was answered `unavailable` may have worked.
            Request::Join(room) => {
                let is_done = matches!(code, None | Some("conflict"));
                self.end_change(&room, true, is_done);
                self.recorder.record(match code {
                    Some(code) if !is_done => Event::NotJoined { socket, room, code: code.to_owned() },
                    _ => Event::Joined { socket, room },
                });
            }
            Request::Leave(room) => {
                let is_done = matches!(code, None | Some("forbidden"));
                self.end_change(&room, false, is_done);
                if is_done {
                    self.recorder.record(Event::Left { socket, room });
                }
            }
        }
    }

    fn end_change(&mut self, room: &str, is_in: bool, is_done: bool) {
        let membership = self.rooms.get_mut(room).expect("only rooms of this member are joined");
        membership.is_pending = false;
        membership.again = Instant::now() + AGAIN;
        if is_done {
            membership.is_in = is_in;
        }
    }

    async fn send(&mut self, request: Request, mut frame: Value) -> Sent {
        self.last_id += 1;
        frame["messageId"] = json!(self.last_id);
        self.pending.insert(self.last_id, request);
        // A node that is frozen for long reads nothing, and the kernel's buffers end.
        match timeout(SOON * 10, self.stream.send(Message::text(frame.to_string()))).await {
            Ok(sent) => sent,
            Err(_) => Err(tokio_tungstenite::tungstenite::Error::ConnectionClosed),
        }
    }

    /// Joins and leaves rooms until all is as it is wanted. Leaves wait for a quieter time unless `with_leaves`.
    async fn keep_membership(&mut self, with_leaves: bool) -> Sent {
        let now = Instant::now();
        let is_due = |membership: &Membership| {
            let is_wrong = membership.is_wanted != membership.is_in;
            is_wrong && !membership.is_pending && membership.again <= now && (membership.is_wanted || with_leaves)
        };
        let due: Vec<String> = self.rooms.iter().filter(|(_, it)| is_due(it)).map(|(room, _)| room.clone()).collect();
        for room in due {
            let socket = self.socket;
            let membership = self.rooms.get_mut(&room).expect("it was found there");
            membership.is_pending = true;
            let is_join = membership.is_wanted;
            let (event, verb, request) = if is_join {
                (Event::Joining { socket, room: room.clone() }, "roomAdd", Request::Join(room.clone()))
            } else {
                (Event::Leaving { socket, room: room.clone() }, "roomLeave", Request::Leave(room.clone()))
            };
            self.recorder.record(event);
            self.send(request, json!({ "event": verb, "room": room })).await?;
        }
        Ok(())
    }

    fn change_wish(&mut self, room: usize) {
        let membership = self.rooms.values_mut().nth(room).expect("a member has that many rooms");
        membership.is_wanted = !membership.is_wanted;
    }

    fn want_all(&mut self) {
        self.rooms.values_mut().for_each(|membership| membership.is_wanted = true);
    }

    /// Says the next message, if it is in that room and stays there.
    async fn say(&mut self, room: usize, last: bool) -> Sent {
        let (name, membership) = self.rooms.iter().nth(room).expect("a member has that many rooms");
        let is_member = membership.is_in && membership.is_wanted && !membership.is_pending;
        if !is_member || (self.pending.len() >= PENDING && !last) {
            return Ok(());
        }
        let (socket, room) = (self.socket, name.clone());
        let text = format!("{socket}-{}", self.last_id + 1);
        self.recorder.record(Event::Say { socket, room: room.clone(), text: text.clone(), last });
        self.send(Request::Say(text.clone()), json!({ "event": "say", "room": room, "message": text })).await
    }

    /// Closes the socket, properly or without a word.
    async fn close(&mut self, is_proper: bool) -> Option<u16> {
        self.recorder.record(Event::Closing { socket: self.socket });
        if is_proper && self.stream.send(Message::Close(None)).await.is_ok() {
            let ended = async { while !matches!(self.stream.next().await, None | Some(Err(_))) {} };
            // The client goes in any case.
            let _ = timeout(SOON, ended).await;
        }
        None
    }
}

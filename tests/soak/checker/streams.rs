//! A history by room: its messages, and what each socket received, in order.

use std::collections::{BTreeMap, HashMap};

use super::super::history::{Change, Event, Record};

pub(super) struct History {
    pub(super) rooms: Vec<RoomHistory>,
    pub(super) sockets: BTreeMap<usize, Socket>,
    pub(super) faults: Vec<Injected>,
}

/// A fault that the soak caused.
pub(super) struct Injected {
    pub(super) kind: String,
    pub(super) node: Option<usize>,
    pub(super) from: u64,
    /// The end of time if it did not end.
    pub(super) to: u64,
}

pub(super) struct Socket {
    pub(super) node: usize,
    pub(super) id: String,
    /// When it was told that its node is away.
    pub(super) aways: Vec<u64>,
    /// When its client began to close it, or it ended.
    pub(super) closed: Option<u64>,
}

#[derive(Default)]
pub(super) struct RoomHistory {
    pub(super) name: String,
    pub(super) has_presence: bool,
    pub(super) messages: Vec<Message>,
    /// By socket.
    pub(super) streams: BTreeMap<usize, Stream>,
    pub(super) listed: Vec<Listed>,
    pub(super) watched: Vec<Watched>,
}

pub(super) struct Message {
    pub(super) text: String,
    pub(super) socket: usize,
    pub(super) sent: u64,
    pub(super) answer: Option<Answer>,
    pub(super) last: bool,
}

pub(super) struct Answer {
    pub(super) at: u64,
    pub(super) code: Option<String>,
}

impl Message {
    /// When it was answered OK.
    pub(super) fn ok(&self) -> Option<u64> {
        self.answer.as_ref().filter(|answer| answer.code.is_none()).map(|answer| answer.at)
    }
}

pub(super) struct Listed {
    pub(super) at: u64,
    pub(super) node: usize,
    pub(super) members: Option<Vec<String>>,
    pub(super) count: u64,
}

/// A list that a node gave during the soak.
pub(super) struct Watched {
    pub(super) at: u64,
    pub(super) node: usize,
    pub(super) asked: u64,
    pub(super) members: BTreeMap<String, u64>,
}

/// A join that a client sent: until it was answered, or may not run any more.
pub(super) struct JoinAttempt {
    pub(super) sent: u64,
    pub(super) ended: Option<u64>,
}

/// What one socket received of one room, with its own joins and leaves.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) items: Vec<Item>,
    /// Frames may be missing behind the last item.
    pub(super) ends_broken: bool,
    /// The times at which something was said that explains missing frames: a gap, or that the membership ends.
    pub(super) breaks: Vec<Break>,
    /// When memberships began and ended: from the request to the confirmation.
    pub(super) changes: Vec<Membership>,
    pub(super) attempts: Vec<JoinAttempt>,
    is_member: bool,
    requested: u64,
}

pub(super) struct Item {
    pub(super) at: u64,
    pub(super) frame: Frame,
    /// Frames may be missing before it.
    pub(super) is_after_break: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The number of the message in its room.
    Message(usize),
    Presence(Change, String),
    /// The confirmation of a join.
    Joined,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) at: u64,
    pub(super) is_gap: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Membership {
    pub(super) requested: u64,
    pub(super) is_member: bool,
}

impl Stream {
    fn push(&mut self, at: u64, frame: Frame) {
        let is_after_break = self.ends_broken;
        self.items.push(Item { at, frame, is_after_break });
        self.ends_broken = !self.is_member;
    }

    fn break_off(&mut self, at: u64, is_gap: bool) {
        self.ends_broken = true;
        self.breaks.push(Break { at, is_gap });
    }

    fn end(&mut self, at: u64, requested: u64) {
        self.break_off(at, false);
        self.attempts.last_mut().into_iter().for_each(|attempt| attempt.end_with_socket(at));
        if std::mem::take(&mut self.is_member) {
            self.changes.push(Membership { requested, is_member: false });
        }
    }

    /// A join is answered.
    fn end_attempt(&mut self, at: u64) {
        self.attempts.last_mut().into_iter().for_each(|attempt| attempt.ended = Some(at));
    }

    /// Whether the socket is a member at the end, as far as its client knows.
    pub(super) fn is_member(&self) -> bool {
        self.is_member
    }

    /// Whether it was a member at that time.
    pub(super) fn was_member(&self, at: u64) -> bool {
        self.changes.iter().rev().find(|change| change.requested <= at).is_some_and(|change| change.is_member)
    }

    /// Whether it was a member at that time, and its join was answered by then.
    pub(super) fn had_joined(&self, at: u64) -> bool {
        let change = self.changes.iter().rev().find(|change| change.requested <= at);
        change.is_some_and(|change| {
            let is_answer =
                |item: &Item| matches!(item.frame, Frame::Joined) && (change.requested..=at).contains(&item.at);
            change.is_member && self.items.iter().any(is_answer)
        })
    }

    /// The numbers of the messages, in the order in which they were received.
    pub(super) fn messages(&self) -> impl Iterator<Item = (usize, usize)> {
        let items = self.items.iter().enumerate();
        items.filter_map(|(index, item)| match item.frame {
            Frame::Message(number) => Some((index, number)),
            Frame::Presence(..) | Frame::Joined => None,
        })
    }
}

impl History {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut history = Self { rooms: Vec::new(), sockets: BTreeMap::new(), faults: Vec::new() };
        let mut numbers: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut indices: HashMap<&str, usize> = HashMap::new();
        for Record { at, event } in records {
            let at = *at;
            match event {
                Event::Soak { rooms, presence, .. } => {
                    for (index, name) in rooms.iter().enumerate() {
                        indices.insert(name, index);
                        let has_presence = presence.contains(name);
                        history.rooms.push(RoomHistory { name: name.clone(), has_presence, ..Default::default() });
                    }
                }
                Event::Fault { kind, node, .. } => {
                    history.faults.push(Injected { kind: kind.clone(), node: *node, from: at, to: u64::MAX });
                }
                Event::FaultEnded { kind, node } => {
                    let is_it = |fault: &&mut Injected| fault.kind == *kind && fault.node == *node;
                    history.faults.iter_mut().rev().find(is_it).into_iter().for_each(|fault| fault.to = at);
                }
                Event::Open { socket, node, id } => {
                    let opened = Socket { node: *node, id: id.clone(), aways: Vec::new(), closed: None };
                    history.sockets.insert(*socket, opened);
                }
                Event::Joining { socket, room } => {
                    let stream = history.stream(indices[&**room], *socket);
                    stream.requested = at;
                    stream.attempts.push(JoinAttempt { sent: at, ended: None });
                }
                Event::NotJoined { socket, room, .. } => history.stream(indices[&**room], *socket).end_attempt(at),
                Event::Joined { socket, room } => {
                    let stream = history.stream(indices[&**room], *socket);
                    stream.end_attempt(at);
                    stream.ends_broken = true;
                    stream.is_member = true;
                    stream.push(at, Frame::Joined);
                    stream.changes.push(Membership { requested: stream.requested, is_member: true });
                }
                Event::Leaving { socket, room } => history.stream(indices[&**room], *socket).end(at, at),
                Event::Say { socket, room, text, last } => {
                    let room = indices[&**room];
                    numbers.insert(text, (room, history.rooms[room].messages.len()));
                    let message = Message { text: text.clone(), socket: *socket, sent: at, answer: None, last: *last };
                    history.rooms[room].messages.push(message);
                }
                Event::Answered { text, code, .. } => {
                    if let Some((room, number)) = numbers.get(&**text) {
                        history.rooms[*room].messages[*number].answer = Some(Answer { at, code: code.clone() });
                    }
                }
                Event::Received { socket, text, .. } => {
                    if let Some(&(room, number)) = numbers.get(&**text) {
                        history.stream(room, *socket).push(at, Frame::Message(number));
                    }
                }
                Event::Presence { socket, room, change, member } => {
                    let frame = Frame::Presence(*change, member.clone());
                    history.stream(indices[&**room], *socket).push(at, frame);
                }
                Event::Gap { socket, room } => history.stream(indices[&**room], *socket).break_off(at, true),
                Event::Away { socket } => {
                    if let Some(socket) = history.sockets.get_mut(socket) {
                        socket.aways.push(at);
                    }
                }
                Event::Closing { socket } | Event::Closed { socket, .. } => {
                    let Some(known) = history.sockets.get_mut(socket) else { continue };
                    known.closed.get_or_insert(at);
                    for room in 0..history.rooms.len() {
                        if let Some(stream) = history.rooms[room].streams.get_mut(socket) {
                            stream.end(at, at);
                        }
                    }
                }
                Event::Listed { node, room, members, count } => {
                    let listed = Listed { at, node: *node, members: members.clone(), count: *count };
                    history.rooms[indices[&**room]].listed.push(listed);
                }
                Event::Watched { node, room, asked, members } => {
                    let watched = Watched { at, node: *node, asked: *asked, members: members.clone() };
                    history.rooms[indices[&**room]].watched.push(watched);
                }
                Event::End => break,
                Event::Left { .. } | Event::Calm => {}
            }
        }
        history
    }

    fn stream(&mut self, room: usize, socket: usize) -> &mut Stream {
        self.rooms[room].streams.entry(socket).or_insert_with(|| Stream { ends_broken: true, ..Default::default() })
    }

    /// How long a node was frozen between two times.
    pub(super) fn frozen(&self, node: usize, from: u64, to: u64) -> u64 {
        let freezes =
            |fault: &&Injected| fault.node == Some(node) && ["freeze", "answers", "late_says"].contains(&&*fault.kind);
        self.faults.iter().filter(freezes).map(|fault| fault.to.min(to).saturating_sub(fault.from.max(from))).sum()
    }
}

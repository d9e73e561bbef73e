//! What waits for a client: a bounded queue of frames, a ping, and the end.

use std::collections::VecDeque;

use bytes::Bytes;

use super::close::CloseReason;
use crate::metrics::bound_reached;

/// What goes out over a socket. Encoded once; a clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text(Bytes),
    /// Anything else.
    Binary(Bytes),
}

impl Frame {
    /// How many bytes the frame carries.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it carries none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an outbox holds at most.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimit {
    /// Frames.
    pub frames: usize,
    /// Bytes of all frames together.
    pub bytes: usize,
}

/// What waits for a client.
#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    pub(super) closing: Option<CloseReason>,
    pub(super) ping: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    /// The connection ends, for another reason.
    Closed,
    /// There was no room: the connection ends as slow.
    Overflow,
}

impl Outbox {
    pub(super) fn push(&mut self, frame: Frame, limit: OutboxLimit) -> Queued {
        if self.is_cut_off() {
            return Queued::Closed;
        }
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= limit.frames || bytes > limit.bytes {
            bound_reached(if bytes > limit.bytes { "websocket.outbox_bytes" } else { "websocket.outbox_frames" });
            self.end(CloseReason::SlowReader);
            return Queued::Overflow;
        }
        self.bytes = bytes;
        self.frames.push_back(frame);
        Queued::Yes
    }

    /// What goes out next: frames in order, then the end, else a ping.
    pub(super) fn next(&mut self) -> Next {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
            return Next::Frame(frame);
        }
        if self.frames.capacity() > 64 {
            self.frames = VecDeque::new(); // a burst must not cost its memory for ever
        }
        if let Some(reason) = self.closing {
            return Next::Close(reason);
        }
        if std::mem::take(&mut self.ping) { Next::Ping } else { Next::Nothing }
    }

    /// Whether nothing more goes out. A node that stops still answers what it accepted.
    pub(super) fn is_cut_off(&self) -> bool {
        self.closing.is_some_and(|reason| reason != CloseReason::NodeStops)
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        self.closing = Some(reason);
        if reason.abandons_outbox() {
            self.frames = VecDeque::new();
            self.bytes = 0;
        }
    }
}

/// What a connection's task does next.
#[derive(Debug)]
pub enum Next {
    /// Write this frame.
    Frame(Frame),
    /// Write a protocol ping.
    Ping,
    /// Close; nothing comes after it.
    Close(CloseReason),
    /// Wait: whoever queues something wakes the task that was [registered](super::Connection::register).
    Nothing,
}

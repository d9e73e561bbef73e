//! The outbox of a client: a bounded queue of frames, a ping, and the close.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::metrics::bound_reached;
use crate::protocol::CloseReason;

/// A frame to a client. Encoded once; a clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text(Bytes),
    /// Any bytes.
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

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimit {
    /// Most frames.
    pub frames: usize,
    /// Most bytes of all frames together.
    pub bytes: usize,
}

/// The frames that wait for a client.
#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    pub(super) closing: Option<CloseReason>,
    pub(super) ping: bool,
}

/// Whether a frame was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    /// No: the connection closes, for another reason.
    Closed,
    /// No: the outbox is full, and the connection closes as slow.
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
            self.close(CloseReason::SlowReader);
            return Queued::Overflow;
        }
        self.bytes = bytes;
        self.frames.push_back(frame);
        Queued::Yes
    }

    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether this very text, and not a copy of it, waits to be written.
    pub(super) fn has(&self, text: &Bytes) -> bool {
        self.frames.iter().rev().any(|frame| matches!(frame, Frame::Text(other) if other.as_ptr() == text.as_ptr()))
    }

    /// Takes the next item: frames in order, then the close, else a ping.
    pub(super) fn next(&mut self) -> OutboxItem {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
            return OutboxItem::Frame(frame);
        }
        if self.frames.capacity() > 64 {
            self.frames = VecDeque::new(); // a burst must not cost its memory for ever
        }
        if let Some(reason) = self.closing {
            return OutboxItem::Close(reason);
        }
        if std::mem::take(&mut self.ping) { OutboxItem::Ping } else { OutboxItem::Nothing }
    }

    /// Whether no more frames are taken. A node that stops still answers the calls it accepted.
    pub(super) fn is_cut_off(&self) -> bool {
        self.closing.is_some_and(|reason| reason != CloseReason::NodeStops)
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closing = Some(reason);
        if reason.abandons_outbox() {
            self.frames = VecDeque::new();
            self.bytes = 0;
        }
    }
}

/// The next item for a connection's task.
#[derive(Debug)]
pub enum OutboxItem {
    /// Write this frame.
    Frame(Frame),
    /// Write a protocol ping.
    Ping,
    /// Close; nothing comes after it.
    Close(CloseReason),
    /// Wait: the next push wakes the task that was [registered](super::Connection::register).
    Nothing,
}

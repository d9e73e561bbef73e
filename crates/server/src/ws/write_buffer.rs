//! The buffer that collects frames for one write.

use std::cell::Cell;

use bytes::Bytes;
use phalanx_core::connection::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A buffer with this many bytes is full.
const FULL: usize = 8 * 1024;

/// A larger payload is not copied into the buffer.
const LARGE: usize = 4 * 1024;

/// A larger message is sent in parts of this size, so that pongs and a close frame need not wait for all of it.
const PART: usize = 16 * 1024;

thread_local! {
    /// The memory for the next buffer of this thread. A buffer exists within one poll, so a thread needs only one, and
    /// sockets need none: a broadcast to thousands of them would load every such buffer into the CPU cache.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encoded frames: small ones copied one after the other, then at most one large one, not copied.
pub(super) struct WriteBuffer {
    head: Vec<u8>,
    tail: Bytes,
    /// The remainder of a message that is sent in parts.
    remainder: Bytes,
}

impl WriteBuffer {
    /// Makes an empty buffer.
    pub(super) fn new() -> Self {
        Self { head: SPARE.take(), tail: Bytes::new(), remainder: Bytes::new() }
    }

    /// Makes a buffer with the next part of a message; [`Self::remainder`] is the remainder.
    pub(super) fn next_part(remainder: Bytes) -> Self {
        let mut buffer = Self::new();
        buffer.put(remainder, Data::Continue);
        buffer
    }

    /// Adds a frame and returns whether there is room for more.
    pub(super) fn add(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Text(payload) => self.put(payload, Data::Text),
            Frame::Binary(payload) => self.put(payload, Data::Binary),
        }
    }

    fn put(&mut self, mut payload: Bytes, kind: Data) -> bool {
        self.remainder = payload.split_off(PART.min(payload.len()));
        let is_final = self.remainder.is_empty();
        let header = FrameHeader { is_final, opcode: OpCode::Data(kind), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut self.head).expect("writing to a Vec never fails");
        if payload.len() > LARGE {
            self.tail = payload;
            return false;
        }
        self.head.extend_from_slice(&payload);
        self.head.len() < FULL
    }

    /// Returns the two slices to write now, one after the other.
    pub(super) fn slices(&self) -> (&[u8], &Bytes) {
        (&self.head, &self.tail)
    }

    /// Returns the remainder of a message that is sent in parts.
    pub(super) fn remainder(&self) -> &Bytes {
        &self.remainder
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        self.head.clear();
        SPARE.set(std::mem::take(&mut self.head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Frame {
        Frame::Text("x".repeat(length).into())
    }

    #[test]
    fn small_frames_are_copied_together_and_a_large_one_follows_without_a_copy() {
        let mut buffer = WriteBuffer::new();
        assert!(buffer.add(text(2)) && buffer.add(Frame::Binary(Bytes::from_static(b"ab"))) && buffer.add(text(126)));
        let large = Bytes::from(vec![b'y'; 2 * PART + 5]);
        assert!(!buffer.add(Frame::Text(large.clone())));
        let (head, tail) = buffer.slices();
        assert_eq!(head[..8], *b"\x81\x02xx\x82\x02ab");
        assert_eq!(head[8..12], [0x81, 126, 0, 126]);
        assert_eq!(head[12 + 126..], [0x01, 126, 0x40, 0], "the first part of several");
        assert_eq!((tail.as_ptr(), tail.len()), (large.as_ptr(), PART));
        let next = WriteBuffer::next_part(buffer.remainder().clone());
        assert_eq!((next.slices().0, next.slices().1.len()), (&[0, 126, 0x40, 0][..], PART));
        let last = WriteBuffer::next_part(next.remainder().clone());
        assert_eq!((last.slices().0, last.remainder().len()), (&b"\x80\x05yyyyy"[..], 0));
    }

    #[test]
    fn a_buffer_is_bounded_and_its_memory_is_reused_by_the_next() {
        let mut buffer = WriteBuffer::new();
        let count = (0..100).take_while(|_| buffer.add(text(LARGE))).count();
        assert_eq!(count, 1, "the second one fills it");
        let (address, capacity) = (buffer.head.as_ptr(), buffer.head.capacity());
        assert!(capacity < 4 * FULL, "{capacity}");
        drop(buffer);
        let next = WriteBuffer::new();
        assert_eq!((next.head.as_ptr(), next.slices()), (address, (&[][..], &Bytes::new())));
    }
}

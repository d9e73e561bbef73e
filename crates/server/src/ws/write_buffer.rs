//! Frames put together for one write.

use std::cell::Cell;

use bytes::Bytes;
use phalanx_core::connection::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A batch is full with so many bytes.
const FULL: usize = 8 * 1024;

/// A payload beyond this is not copied.
const LARGE: usize = 4 * 1024;

/// A message beyond this goes out in parts of this size, so that pongs and a close frame need not wait for all of it.
const PART: usize = 16 * 1024;

thread_local! {
    /// What a batch is written into, between two of them. A batch lives within one poll, so each thread needs but one,
    /// and no socket keeps a buffer: a broadcast to thousands would fetch every one of them into the cache.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Frames as they go over the wire: small ones one after the other, and a large one behind them, from where it is.
pub(super) struct Batch {
    head: Vec<u8>,
    tail: Bytes,
    /// What is to follow in parts.
    rest: Bytes,
}

impl Batch {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { head: SPARE.take(), tail: Bytes::new(), rest: Bytes::new() }
    }

    /// The next part of a message; what is left of it follows.
    pub(super) fn next_part(rest: Bytes) -> Self {
        let mut batch = Self::new();
        batch.put(rest, Data::Continue);
        batch
    }

    /// Adds a frame; says whether there is room for more.
    pub(super) fn add(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Text(payload) => self.put(payload, Data::Text),
            Frame::Binary(payload) => self.put(payload, Data::Binary),
        }
    }

    fn put(&mut self, mut payload: Bytes, kind: Data) -> bool {
        self.rest = payload.split_off(PART.min(payload.len()));
        let is_final = self.rest.is_empty();
        let header = FrameHeader { is_final, opcode: OpCode::Data(kind), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut self.head).expect("a Vec takes whatever is written");
        if payload.len() > LARGE {
            self.tail = payload;
            return false;
        }
        self.head.extend_from_slice(&payload);
        self.head.len() < FULL
    }

    /// What is to be written now, one after the other.
    pub(super) fn now(&self) -> (&[u8], &Bytes) {
        (&self.head, &self.tail)
    }

    /// What is to follow in parts.
    pub(super) fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Drop for Batch {
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
    fn small_frames_are_put_together_and_a_large_one_goes_behind_them_uncopied() {
        let mut batch = Batch::new();
        assert!(batch.add(text(2)) && batch.add(Frame::Binary(Bytes::from_static(b"ab"))) && batch.add(text(126)));
        let large = Bytes::from(vec![b'y'; 2 * PART + 5]);
        assert!(!batch.add(Frame::Text(large.clone())));
        let (head, tail) = batch.now();
        assert_eq!(head[..8], *b"\x81\x02xx\x82\x02ab");
        assert_eq!(head[8..12], [0x81, 126, 0, 126]);
        assert_eq!(head[12 + 126..], [0x01, 126, 0x40, 0], "the first part of several");
        assert_eq!((tail.as_ptr(), tail.len()), (large.as_ptr(), PART));
        let next = Batch::next_part(batch.rest().clone());
        assert_eq!((next.now().0, next.now().1.len()), (&[0, 126, 0x40, 0][..], PART));
        let last = Batch::next_part(next.rest().clone());
        assert_eq!((last.now().0, last.rest().len()), (&b"\x80\x05yyyyy"[..], 0));
    }

    #[test]
    fn a_batch_is_bounded_and_leaves_its_memory_to_the_next() {
        let mut batch = Batch::new();
        let count = (0..100).take_while(|_| batch.add(text(LARGE))).count();
        assert_eq!(count, 1, "the second one fills it");
        let (place, capacity) = (batch.head.as_ptr(), batch.head.capacity());
        assert!(capacity < 4 * FULL, "{capacity}");
        drop(batch);
        let next = Batch::new();
        assert_eq!((next.head.as_ptr(), next.now()), (place, (&[][..], &Bytes::new())));
    }
}

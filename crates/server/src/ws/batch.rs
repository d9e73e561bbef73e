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

thread_local! {
    /// What a batch is written into, between two of them. A batch lives within one poll, so each thread needs but one,
    /// and no socket keeps a buffer: a broadcast to thousands would fetch every one of them into the cache.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Frames as they go over the wire: small ones one after the other, and a large one behind them, from where it is.
pub(super) struct Batch {
    head: Vec<u8>,
    tail: Bytes,
}

impl Batch {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { head: SPARE.take(), tail: Bytes::new() }
    }

    /// Adds a frame; says whether there is room for more.
    pub(super) fn add(&mut self, frame: Frame) -> bool {
        let (payload, kind) = match frame {
            Frame::Text(payload) => (payload, Data::Text),
            Frame::Binary(payload) => (payload, Data::Binary),
        };
        let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut self.head).expect("a Vec takes whatever is written");
        if payload.len() > LARGE {
            self.tail = payload;
            return false;
        }
        self.head.extend_from_slice(&payload);
        self.head.len() < FULL
    }

    /// Both parts, in their order.
    pub(super) fn parts(&self) -> (&[u8], &Bytes) {
        (&self.head, &self.tail)
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
        let large = Bytes::from(vec![b'y'; 70_000]);
        assert!(!batch.add(Frame::Text(large.clone())));
        let (head, tail) = batch.parts();
        assert_eq!(head[..8], *b"\x81\x02xx\x82\x02ab");
        assert_eq!(head[8..12], [0x81, 126, 0, 126]);
        assert_eq!(head[12 + 126..], [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!(tail.as_ptr(), large.as_ptr());
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
        assert_eq!((next.head.as_ptr(), next.parts()), (place, (&[][..], &Bytes::new())));
    }
}

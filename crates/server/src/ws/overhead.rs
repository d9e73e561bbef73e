//! The bytes of a client that are the payload of no message: empty continuation frames, and headers of tiny ones.
//!
//! tungstenite reads frames until it has a message, so nothing else sees these. They are found by their sum: the bytes
//! that were read, less those of the messages that came out.

use super::stream::READ_BUFFER;

/// The overhead that costs as much of the rate as a message.
const PER_TOKEN: u32 = 256;

/// The longest header of a frame. That of one frame a message is no overhead.
const HEADER: u32 = 14;

/// Separates overhead from payload, as bytes and messages of one socket come in.
#[derive(Debug)]
pub(super) struct Overhead {
    /// Bytes that were read and belong to no message yet.
    unsettled: u32,
    /// Overhead that was not paid for yet.
    unpaid: u32,
    max_message: u32,
}

impl Overhead {
    pub(super) fn new(max_message: usize) -> Self {
        Self { unsettled: 0, unpaid: 0, max_message: u32::try_from(max_message).unwrap_or(u32::MAX / 2) }
    }

    /// Counts bytes that were read.
    pub(super) fn add_read(&mut self, bytes: usize) {
        self.unsettled = self.unsettled.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Settles the bytes of a control frame, which may stand between the fragments of a message.
    pub(super) fn settle_control(&mut self, payload: usize) {
        self.unsettled =
            self.unsettled.saturating_sub(u32::try_from(payload).unwrap_or(u32::MAX).saturating_add(HEADER));
    }

    /// Settles the bytes before the end of a message. Of the rest, the last read may belong to frames that follow.
    pub(super) fn settle(&mut self, payload: usize) {
        self.settle_control(payload);
        self.keep(READ_BUFFER as u32);
    }

    /// Returns the tokens for the overhead since the last call. Of a message that is not complete, only the bytes beyond
    /// the largest message are certain to be overhead.
    pub(super) fn take_tokens(&mut self) -> u32 {
        self.keep(self.max_message.saturating_add(HEADER + 2 * READ_BUFFER as u32));
        let tokens = self.unpaid / PER_TOKEN;
        self.unpaid %= PER_TOKEN;
        tokens
    }

    fn keep(&mut self, most: u32) {
        let overhead = self.unsettled.saturating_sub(most);
        self.unsettled -= overhead;
        self.unpaid = self.unpaid.saturating_add(overhead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64 * 1024;

    /// The tokens for messages that arrive as (bytes on the wire, payload), read in steps of one buffer.
    fn tokens(messages: impl Iterator<Item = (usize, usize)>) -> u32 {
        let (mut overhead, mut tokens, mut ahead) = (Overhead::new(MAX), 0, 0);
        for (on_wire, payload) in messages {
            while ahead < on_wire {
                overhead.add_read(READ_BUFFER);
                ahead += READ_BUFFER;
                tokens += overhead.take_tokens();
            }
            ahead -= on_wire;
            overhead.settle(payload);
            tokens += overhead.take_tokens();
        }
        tokens
    }

    /// All of the overhead is paid for, but for what two reads may hold.
    fn check(tokens: u32, overhead: usize) {
        let paid = tokens as usize * PER_TOKEN as usize;
        assert!((overhead.saturating_sub(2 * READ_BUFFER + 300)..=overhead).contains(&paid), "{paid} of {overhead}");
    }

    #[test]
    fn whole_messages_of_any_size_have_no_overhead() {
        for (header, payload) in [(6, 0), (6, 40), (6, 125), (8, 126), (8, 1020), (8, 5000), (14, MAX)] {
            assert_eq!(tokens((0..5000).map(|_| (header + payload, payload))), 0, "{payload}");
        }
        // Large and small ones in turn, and a large message in parts of 16 KiB.
        assert_eq!(tokens((0..5000).map(|n| if n % 2 == 0 { (MAX + 14, MAX) } else { (7, 1) })), 0);
        check(tokens((0..200).map(|_| (MAX + 4 * 8, MAX))), 200 * (4 * 8 - 14));
    }

    #[test]
    fn a_control_frame_between_fragments_is_no_overhead() {
        let mut overhead = Overhead::new(MAX);
        for _ in 0..100 {
            for _ in 0..60 {
                overhead.add_read(READ_BUFFER);
            }
            overhead.settle_control(0);
            overhead.settle(60 * READ_BUFFER - 4 * 8);
            assert_eq!(overhead.take_tokens(), 0);
        }
    }

    #[test]
    fn frames_without_payload_are_paid_for_by_their_bytes() {
        // Messages of 60 empty continuations each: all but a read's worth is paid for.
        let paid = tokens((0..1000).map(|_| (61 * 6, 0)));
        check(paid, 1000 * (61 * 6 - 14));
        // A message that never ends: all beyond the largest message, in time.
        let mut endless = Overhead::new(MAX);
        let mut paid = 0;
        for _ in 0..1024 {
            endless.add_read(READ_BUFFER);
            paid += endless.take_tokens();
        }
        check(paid, 1024 * READ_BUFFER - MAX);
    }
}

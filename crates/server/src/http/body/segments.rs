//! The bytes of a body while it comes.

use bytes::Bytes;

/// Pieces of a body, none larger than [`SEGMENT`].
///
/// A buffer that doubles leaves holes in the heap that fit no other, when bodies grow side by side. Segments never grow, and
/// most have one size, so that each takes the place of another.
#[derive(Debug)]
pub(super) struct Segments {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    length: usize,
    /// The most bytes that are expected.
    expected: usize,
}

/// The largest capacity of a segment. Its empty part is the only memory of a body that is not counted.
const SEGMENT: usize = 4 * 1024;

impl Segments {
    pub(super) const fn new(expected: usize) -> Self {
        Self { full: Vec::new(), last: Vec::new(), length: 0, expected }
    }

    pub(super) const fn length(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.last.len() == self.last.capacity() {
                // As much as is held already, so that many small pieces make few segments.
                let most = self.expected.saturating_sub(self.length).clamp(1, SEGMENT);
                let capacity = self.length.max(data.len()).min(most);
                let full = std::mem::replace(&mut self.last, Vec::with_capacity(capacity));
                self.full.extend((!full.is_empty()).then_some(full));
            }
            let (now, later) = data.split_at(data.len().min(self.last.capacity() - self.last.len()));
            self.last.extend_from_slice(now);
            self.length += now.len();
            data = later;
        }
    }

    /// Returns all bytes in one buffer: the only copy of a body that needs more than one segment.
    pub(super) fn join(self) -> Bytes {
        if self.full.is_empty() {
            return self.last.into();
        }
        let mut whole = Vec::with_capacity(self.length);
        for segment in self.full.into_iter().chain([self.last]) {
            whole.extend_from_slice(&segment);
        }
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds pieces; returns what comes out, and the capacity that was held.
    fn collect(expected: usize, pieces: &[&[u8]]) -> (Bytes, usize) {
        let (mut segments, mut held) = (Segments::new(expected), 0);
        for piece in pieces {
            segments.push(piece);
            held = segments.full.iter().chain([&segments.last]).map(Vec::capacity).sum();
            assert!(held < segments.length() + SEGMENT.min(segments.length()), "{held} for {}", segments.length());
        }
        (segments.join(), held)
    }

    #[test]
    fn pieces_of_any_size_come_out_whole_and_take_a_segment_more_at_most() {
        let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [1, 7, 1000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 300_000] {
            for expected in [usize::MAX, body.len()] {
                let pieces: Vec<&[u8]> = body.chunks(size).collect();
                let (whole, held) = collect(expected, &pieces);
                assert!(whole == body, "in pieces of {size}");
                assert!(expected == usize::MAX || held == body.len(), "{held}: not more than is expected");
            }
        }
    }
}

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

/// The largest capacity of a segment.
const SEGMENT: usize = 64 * 1024;

impl Segments {
    pub(super) const fn new(expected: usize) -> Self {
        Self { full: Vec::new(), last: Vec::new(), length: 0, expected }
    }

    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// Adds bytes. Calls `grow` with the capacity that is allocated for them, before it is.
    ///
    /// # Errors
    ///
    /// That of `grow`. What was added before is kept.
    pub(super) fn push<E>(&mut self, mut data: &[u8], mut grow: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        while !data.is_empty() {
            if self.last.len() == self.last.capacity() {
                // As much as is held already, so that many small pieces make few segments.
                let most = self.expected.saturating_sub(self.length).clamp(1, SEGMENT);
                let capacity = self.length.max(data.len()).min(most);
                grow(capacity)?;
                let full = std::mem::replace(&mut self.last, Vec::with_capacity(capacity));
                self.full.extend((!full.is_empty()).then_some(full));
            }
            let (now, later) = data.split_at(data.len().min(self.last.capacity() - self.last.len()));
            self.last.extend_from_slice(now);
            self.length += now.len();
            data = later;
        }
        Ok(())
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

    /// Adds pieces; returns what comes out, and the capacity that was counted.
    fn collect(expected: usize, pieces: &[&[u8]]) -> (Bytes, usize) {
        let (mut segments, mut counted) = (Segments::new(expected), 0);
        for piece in pieces {
            let grown = segments.push(piece, |bytes| {
                counted += bytes;
                Ok::<_, ()>(())
            });
            assert!(grown.is_ok());
            let held = segments.full.iter().chain([&segments.last]).map(Vec::capacity).sum::<usize>();
            assert_eq!(counted, held, "all that is held is counted");
            assert!(counted <= 2 * segments.length(), "{counted} for {}", segments.length());
        }
        (segments.join(), counted)
    }

    #[test]
    fn pieces_of_any_size_come_out_whole_and_counted() {
        let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [1, 7, 1000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 300_000] {
            for expected in [usize::MAX, body.len()] {
                let pieces: Vec<&[u8]> = body.chunks(size).collect();
                let (whole, counted) = collect(expected, &pieces);
                assert!(whole == body, "in pieces of {size}");
                assert!(expected == usize::MAX || counted == body.len(), "{counted}: not more than is expected");
            }
        }
    }

    #[test]
    fn what_cannot_grow_is_refused() {
        let mut segments = Segments::new(usize::MAX);
        segments.push(b"ab", |_| Ok::<_, ()>(())).unwrap();
        assert_eq!(segments.push(&[0; SEGMENT], |_| Err("full")), Err("full"));
    }
}

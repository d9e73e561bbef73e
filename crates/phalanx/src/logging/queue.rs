//! The bounded queue between the threads that log and the one that writes. A thread that logs never waits for a reader
//! of the log: at the bound its line is dropped, counted, and announced where the gap is.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most lines that wait for a sink, those being written included.
const MAX_LINES: usize = 16_384;

/// Most bytes of these lines. The bound in lines is not enough: a line of level `debug` may hold a body of 1 MiB.
const MAX_BYTES: usize = 8 << 20;

/// Most bytes of the several lines that the writer takes at once. Each time it takes the lock it may delay a thread that
/// logs.
const BATCH_BYTES: usize = 64 * 1024;

/// The pause of the writer between two looks at its queue. To wake it would cost the thread that logs a system call per
/// line.
const POLL: Duration = Duration::from_millis(2);

/// The number of looks in a row that find nothing, after which the writer waits to be woken.
const POLLS: u32 = 500;

/// A line that waits.
#[derive(Debug)]
pub(super) struct QueuedLine {
    pub(super) text: Box<[u8]>,
    /// The number of lines that were dropped between the accepted line before this one and this one.
    pub(super) dropped_before: u64,
}

/// Work for the writer.
#[derive(Debug)]
pub(super) enum Work {
    /// Lines to write, then the number of lines that were dropped after them.
    Write(Vec<QueuedLine>, u64),
    /// The output is to be reopened.
    Reopen,
}

#[derive(Debug, Default)]
pub(super) struct LineQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<QueuedLine>,
    /// The number of lines in `lines` and of those being written.
    count: usize,
    /// The bytes of these lines.
    bytes: usize,
    /// The lines dropped since the last one that was accepted.
    dropped: u64,
    reopens: bool,
    /// Whether the writer waits to be woken.
    is_parked: bool,
}

impl LineQueue {
    /// Queues a line, or drops and counts it. It never waits for the writer.
    pub(super) fn push(&self, text: &[u8]) {
        let text: Box<[u8]> = text.into();
        let mut state = self.lock();
        if state.count >= MAX_LINES || state.bytes.saturating_add(text.len()) > MAX_BYTES {
            state.dropped += 1;
            self.count_dropped(1);
            return;
        }
        self.accept(state, text);
    }

    /// Queues the last line of the process, also beyond the bounds.
    pub(super) fn push_last(&self, text: &[u8]) {
        self.accept(self.lock(), text.into());
    }

    fn accept(&self, mut state: MutexGuard<'_, QueueState>, text: Box<[u8]>) {
        state.count += 1;
        state.bytes += text.len();
        let dropped_before = mem::take(&mut state.dropped);
        state.lines.push_back(QueuedLine { text, dropped_before });
        if mem::take(&mut state.is_parked) {
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Lets the writer reopen its output before it writes the next line.
    pub(super) fn request_reopen(&self) {
        self.lock().reopens = true;
        self.arrived.notify_one();
    }

    /// Waits until all is written, or `limit` is over. Returns whether all is written.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let state = self.lock();
        self.arrived.notify_one();
        let waited = self.drained.wait_timeout_while(state, limit, |state| state.count > 0 || state.dropped > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for work. For the writer, which calls [`done`](Self::done) after it.
    pub(super) fn next(&self) -> Work {
        let mut state = self.lock();
        let mut polls = 0;
        loop {
            if mem::take(&mut state.reopens) {
                return Work::Reopen;
            }
            if !state.lines.is_empty() || state.dropped > 0 {
                let batch = state.take_batch();
                let dropped_after = if state.lines.is_empty() { mem::take(&mut state.dropped) } else { 0 };
                return Work::Write(batch, dropped_after);
            }
            self.drained.notify_all();
            state = if polls < POLLS {
                polls += 1;
                self.arrived.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0
            } else {
                state.is_parked = true;
                let mut state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.is_parked = false;
                state
            };
        }
    }

    /// Takes lines that were written, or could not be, off the bounds.
    pub(super) fn done(&self, batch: &[QueuedLine]) {
        let mut state = self.lock();
        state.count -= batch.len();
        state.bytes -= batch.iter().map(|line| line.text.len()).sum::<usize>();
    }

    /// Counts lines that are lost.
    pub(super) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    /// The number of lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Takes whole lines, as many as fit into a batch, but at least one if there is one.
    fn take_batch(&mut self) -> Vec<QueuedLine> {
        let mut bytes = 0;
        let fits = |line: &&QueuedLine| {
            bytes += line.text.len();
            bytes <= BATCH_BYTES
        };
        let count = self.lines.iter().take_while(fits).count().max(1).min(self.lines.len());
        self.lines.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(queue: &LineQueue) -> (Vec<(String, u64)>, u64) {
        let Work::Write(lines, dropped_after) = queue.next() else { panic!("nothing was to be reopened") };
        queue.done(&lines);
        let text = |line: &QueuedLine| (String::from_utf8_lossy(&line.text).into_owned(), line.dropped_before);
        (lines.iter().map(text).collect(), dropped_after)
    }

    #[test]
    fn the_newest_line_is_dropped_at_the_bound_of_lines_and_the_gap_is_known() {
        let queue = LineQueue::default();
        for _ in 0..MAX_LINES + 3 {
            queue.push(b"12345678\n");
        }
        assert_eq!(queue.dropped(), 3);
        let (first, dropped_after) = batch(&queue);
        assert_eq!((first.len(), dropped_after), (BATCH_BYTES / 9, 0));
        queue.push(b"later\n");
        let mut rest = Vec::new();
        while queue.lock().count > 0 {
            rest.extend(batch(&queue).0);
        }
        assert_eq!(rest.pop(), Some(("later\n".to_owned(), 3)));
        assert!(rest.iter().all(|(_, dropped)| *dropped == 0));
    }

    #[test]
    fn the_bound_of_bytes_counts_lines_that_are_being_written_and_spares_the_last_line() {
        let queue = LineQueue::default();
        queue.push(&vec![b'x'; MAX_BYTES]);
        let Work::Write(writing, 0) = queue.next() else { panic!("a line waits") };
        queue.push(b"dropped\n");
        queue.push_last(b"error: the reason\n");
        assert_eq!(queue.dropped(), 1);
        queue.done(&writing);
        assert_eq!(batch(&queue), (vec![("error: the reason\n".to_owned(), 1)], 0));
        queue.push(&vec![b'x'; MAX_BYTES + 1]);
        assert_eq!(batch(&queue), (vec![], 1), "a gap with nothing after it is announced as well");
    }

    #[test]
    fn a_flush_gives_up_after_its_limit() {
        let queue = LineQueue::default();
        assert!(queue.flush(Duration::ZERO));
        queue.push(b"a\n");
        assert!(!queue.flush(Duration::from_millis(1)));
    }
}

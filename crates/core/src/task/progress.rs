//! The progress of an attempt: written at most five times a second, and the last value always.
//!
//! The value that is reported last waits here until it is stored: by a writer that runs while there are values, or with the
//! settlement of the attempt. So a report waits for nothing, and no value is stored behind the end of its attempt.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

/// Most bytes of the JSON of a progress.
pub const MAX_PROGRESS_BYTES: usize = 4 * 1024;

/// The progress of an attempt. One that reports none pays nothing.
#[derive(Debug, Default)]
pub struct AttemptProgress(OnceLock<Mutex<ProgressState>>);

#[derive(Debug, Default)]
struct ProgressState {
    /// The last value, until it is stored.
    latest: Option<Bytes>,
    /// The value that is being written.
    written: Option<Bytes>,
    /// Whether the last value could not be written.
    has_failed: bool,
    /// Whether a writer runs.
    has_writer: bool,
    /// Whether the attempt is being settled.
    is_closed: bool,
}

impl AttemptProgress {
    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.0.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a value; returns whether a writer is to be started.
    pub(super) fn set(&self, value: Bytes) -> bool {
        let mut state = self.state();
        if state.is_closed {
            return false;
        }
        state.latest = Some(value);
        state.has_failed = false;
        !std::mem::replace(&mut state.has_writer, true)
    }

    /// No writer could be started.
    pub(super) fn has_no_writer(&self) {
        self.state().has_writer = false;
    }

    /// The value to write next; without one the writer ends. One that could not be written waits for a further one.
    pub(super) fn next(&self) -> Option<Bytes> {
        let mut state = self.state();
        state.written = if state.has_failed { None } else { state.latest.take() };
        state.has_writer = state.written.is_some();
        state.written.clone()
    }

    /// A write ended. Its value stays if it failed, unless there is a newer one.
    pub(super) fn on_written(&self, is_stored: bool) {
        let mut state = self.state();
        let written = state.written.take();
        if !is_stored && state.latest.is_none() {
            state.latest = written;
            state.has_failed = true;
        }
    }

    /// Ends the reports of an attempt that is being settled; returns the value that its settlement has to store. One whose
    /// write was not answered is among them: the write may come late, and find no attempt.
    pub fn close(&self) -> Option<Bytes> {
        self.0.get()?;
        let mut state = self.state();
        state.is_closed = true;
        state.latest.take().or_else(|| state.written.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_is_written_by_the_writer_or_with_the_settlement() {
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        let progress = AttemptProgress::default();
        assert_eq!(progress.close(), None);
        let progress = AttemptProgress::default();
        assert!(progress.set(value("1")), "it needs a writer");
        assert!(!progress.set(value("2")), "it has one");
        assert_eq!(progress.next(), Some(value("2")));
        progress.on_written(true);
        assert_eq!(progress.next(), None);
        assert!(progress.set(value("3")), "the writer has ended");
        assert_eq!(progress.next(), Some(value("3")));
        progress.on_written(false);
        assert_eq!(progress.next(), None, "it waits for a further one");
        assert!(progress.set(value("4")), "the writer has ended");
        assert_eq!(progress.next(), Some(value("4")));
        assert_eq!(progress.close(), Some(value("4")), "its write was not answered");
        assert!(!progress.set(value("5")), "the attempt is settled");
        assert_eq!(progress.next(), None);
    }
}

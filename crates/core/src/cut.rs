//! The work that a node cuts off when its time to stop is over, by name: an operator wants to know whose it was.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The most names that are kept; further work is counted.
const NAMES: usize = 20;

/// The work that was dropped since the cut began.
#[derive(Debug, Default)]
pub(crate) struct CutWork(Mutex<CutState>);

#[derive(Debug, Default)]
struct CutState {
    begins: Option<Instant>,
    names: Vec<String>,
    others: usize,
}

impl CutWork {
    /// Work that is dropped from then on counts as cut; before, its client has left.
    pub(crate) fn begins_at(&self, instant: Instant) {
        self.lock().begins = Some(instant);
    }

    /// Notes the name of work that is dropped before its end.
    pub(crate) fn note(&self, name: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.begins.is_none_or(|begins| Instant::now() < begins) {
            return;
        }
        if state.names.len() < NAMES {
            state.names.push(name());
        } else {
            state.others += 1;
        }
    }

    /// All names, as a text for the log; `None` if nothing was cut.
    pub(crate) fn text(&self) -> Option<String> {
        let state = self.lock();
        let mut text = state.names.join(", ");
        if state.others > 0 {
            let _ = write!(text, ", and {} others", state.others);
        }
        (!text.is_empty()).then_some(text)
    }

    fn lock(&self) -> MutexGuard<'_, CutState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_counts_as_cut_from_an_instant_on_and_its_list_has_a_bound() {
        let work = CutWork::default();
        work.note(|| "before any cut".to_owned());
        work.begins_at(Instant::now() + Duration::from_secs(1));
        work.note(|| "in time".to_owned());
        assert_eq!(work.text(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..NAMES + 2 {
            work.note(|| number.to_string());
        }
        let text = work.text().unwrap();
        assert!(text.starts_with("0, 1, 2") && text.ends_with("18, 19, and 2 others"), "{text}");
    }
}

//! The work that a node cuts off when its time to stop is over, by name: an operator wants to know whose it was.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The most names that are kept; further work is counted.
const NAMES: usize = 20;

/// The time for parts with threads of their own to note what they cut.
const NOTING: Duration = Duration::from_millis(500);

/// The work that was dropped since the cut began.
#[derive(Debug, Default)]
pub(crate) struct CutWork {
    state: Mutex<CutState>,
    /// Cancelled when everything is cut at once.
    begun: CancellationToken,
    /// The parts whose work is dropped elsewhere, if at all.
    parts: TaskTracker,
}

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

    /// Work that is dropped from now on counts as cut. Waits until the parts have noted theirs, for 500 ms at most.
    pub(crate) async fn begin(&self) {
        self.begins_at(Instant::now());
        self.begun.cancel();
        self.parts.close();
        let _ = timeout(NOTING, self.parts.wait()).await;
    }

    /// Completes when everything is cut at once.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// A part that notes its work at [`begun`](Self::begun), and then drops this.
    pub(crate) fn part(&self) -> TaskTrackerToken {
        self.parts.token()
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work that runs: its name is noted if it is cut off, that is, if this is dropped before its end.
pub struct UnfinishedWork<F: FnOnce() -> String> {
    cut: Arc<CutWork>,
    /// `None` once it has ended.
    name: Option<F>,
}

impl<F: FnOnce() -> String> UnfinishedWork<F> {
    pub(crate) fn new(cut: Arc<CutWork>, name: F) -> Self {
        Self { cut, name: Some(name) }
    }

    /// The end of the work.
    pub fn finish(mut self) {
        self.name = None;
    }
}

impl<F: FnOnce() -> String> Drop for UnfinishedWork<F> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.cut.note(name);
        }
    }
}

impl<F: FnOnce() -> String> fmt::Debug for UnfinishedWork<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnfinishedWork").field("cut", &self.cut).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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

    #[tokio::test(start_paused = true)]
    async fn a_cut_waits_for_parts_to_note_their_work_and_not_for_ever() {
        let work = Arc::<CutWork>::default();
        let part = work.part();
        let noting = work.clone();
        tokio::spawn(async move {
            noting.begun().await;
            noting.note(|| "job".to_owned());
            drop(part);
        });
        UnfinishedWork::new(work.clone(), || "finished".to_owned()).finish();
        work.begin().await;
        assert_eq!(work.text().unwrap(), "job");
        let _blocked = work.part();
        work.begin().await;
    }
}

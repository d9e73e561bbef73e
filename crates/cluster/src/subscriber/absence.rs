//! The time for which a node is without its subscriptions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// An absence of this length is reported. Reconnects after a short fault take less.
const REPORTED_AFTER: Duration = Duration::from_secs(3);

/// Two reports are at least so far apart, although the subscriptions came and went between them.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Counts from the break of a complete subscription to the next complete one.
#[derive(Debug, Default)]
pub(super) struct Absence(Mutex<AbsenceTimes>);

#[derive(Debug, Default)]
struct AbsenceTimes {
    since: Option<Instant>,
    is_reported: bool,
    last_report: Option<Instant>,
}

impl Absence {
    /// The subscriptions are lost.
    pub(super) fn begin(&self) {
        self.begin_at(Instant::now());
    }

    fn begin_at(&self, now: Instant) {
        let mut times = self.times();
        (times.since, times.is_reported) = (Some(now), false);
    }

    /// All are back.
    pub(super) fn end(&self) {
        self.times().since = None;
    }

    /// Reports an absence once, if it lasts long enough. One that `report` cannot take is reported later.
    pub(super) fn report(&self, now: Instant, report: impl FnOnce() -> bool) {
        let mut times = self.times();
        let lasts = times.since.is_some_and(|since| now - since >= REPORTED_AFTER);
        let is_recent = times.last_report.is_some_and(|last| now - last < REPORT_INTERVAL);
        if lasts && !times.is_reported && !is_recent && report() {
            (times.is_reported, times.last_report) = (true, Some(now));
        }
    }

    fn times(&self) -> MutexGuard<'_, AbsenceTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_reported_once_and_not_while_it_is_short_or_follows_another() {
        let (absence, start) = (Absence::default(), Instant::now());
        let reports = |at_ms, takes: bool| {
            let mut is_reported = false;
            absence.report(start + Duration::from_millis(at_ms), || {
                is_reported = true;
                takes
            });
            is_reported
        };
        assert!(!reports(10_000, true), "nothing was subscribed yet");
        absence.begin_at(start + Duration::from_secs(10));
        assert!(!reports(12_900, true));
        assert!(reports(13_000, false), "the queue is full");
        assert!(reports(13_200, true));
        assert!(!reports(13_400, true) && !reports(90_000, true), "it is known");
        absence.end();
        absence.begin_at(start + Duration::from_secs(14));
        assert!(!reports(17_500, true), "the last report was 4.3 s ago");
        assert!(reports(18_200, true));
        absence.end();
        assert!(!reports(30_000, true), "all are back");
    }
}

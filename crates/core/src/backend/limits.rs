//! The seam for rate limits: how many calls of each subject the window saw.
//!
//! The time of a limit is cut into ten slices, and the slice that runs counts with the ten before it. So no stretch of that
//! length, wherever it begins, sees more calls than the limit, and a call is forgotten a tenth late at most.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::error::BackendError;
use crate::config::LimitRate;

/// Slices of a window.
const SLICES: u64 = 10;

impl LimitRate {
    /// The length of a slice in microseconds. Ten of them are no shorter than the window.
    pub fn slice_us(self) -> u64 {
        (self.window.as_micros() as u64).div_ceil(SLICES).max(1)
    }
}

/// A call, as one limit counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedCall {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// Whose calls are counted: a short text without secrets.
    pub subject: Arc<str>,
    /// The rate.
    pub rate: LimitRate,
}

/// How far a subject is from its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// How many more calls there may be now.
    pub left: u32,
    /// When there may be one more; zero if there may be one now.
    pub retry_after: Duration,
    /// When there may be as many as the limit says.
    pub whole_in: Duration,
}

/// The decision about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitDecision {
    /// Whether it was counted: by all of its limits, or by none.
    pub is_counted: bool,
    /// The state of each of its limits, in their order. Of a call that was not counted, those that refused it have a
    /// [`retry_after`](LimitState::retry_after).
    pub states: Vec<LimitState>,
}

/// Counts calls.
#[async_trait]
pub trait LimitStore: Send + Sync + 'static {
    /// Counts a call for all of these limits, or, if one of them has no room, for none of them, in one step. Nothing is kept of
    /// a call that was not counted.
    async fn count(&self, calls: &[LimitedCall]) -> Result<LimitDecision, BackendError>;

    /// Whether it answers from this process, without a wait and without errors.
    fn is_local(&self) -> bool {
        false
    }
}

/// The calls of a subject that a limit counts, by slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct SliceCounts {
    counts: Vec<(u64, u32)>,
}

impl SliceCounts {
    /// Forgets what no window that ends now contains. Calls that were counted by a clock which was ahead are kept for as long
    /// as it can have been by the time of the limit.
    pub(crate) fn forget(&mut self, rate: LimitRate, now_us: u64) {
        let current = now_us / rate.slice_us();
        self.counts.retain(|(slice, _)| slice.abs_diff(current) <= SLICES);
    }

    /// Whether it counts nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Counts a call.
    pub(crate) fn add(&mut self, rate: LimitRate, now_us: u64) {
        let current = now_us / rate.slice_us();
        match self.counts.iter_mut().find(|(slice, _)| *slice == current) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.counts.push((current, 1)),
        }
    }

    /// The state of the subject, after [`forget`](Self::forget) at the same time.
    pub(crate) fn state(&self, rate: LimitRate, now_us: u64) -> LimitState {
        let used: u64 = self.counts.iter().map(|(_, count)| u64::from(*count)).sum();
        let forgotten_in =
            |slice: u64| Duration::from_micros(((slice + SLICES + 1) * rate.slice_us()).saturating_sub(now_us));
        let mut retry_after = Duration::ZERO;
        if used >= u64::from(rate.calls) {
            let (mut sorted, mut rest) = (self.counts.clone(), used);
            sorted.sort_unstable();
            let freed = sorted.into_iter().find(|(_, count)| {
                rest -= u64::from(*count);
                rest < u64::from(rate.calls)
            });
            retry_after = freed.map_or(Duration::ZERO, |(slice, _)| forgotten_in(slice));
        }
        let newest = self.counts.iter().map(|(slice, _)| *slice).max();
        LimitState {
            left: u32::try_from(u64::from(rate.calls).saturating_sub(used)).unwrap_or(u32::MAX),
            retry_after,
            whole_in: newest.map_or(Duration::ZERO, forgotten_in),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Ten slices of a second.
    const RATE: LimitRate = LimitRate { calls: 3, window: Duration::from_secs(10) };

    /// Counts calls at these seconds, and returns the state at `now`: left, seconds until one more, seconds until all.
    fn state(calls: &[u64], now: u64) -> (u32, u64, u64) {
        let mut counts = SliceCounts::default();
        for at in calls {
            counts.forget(RATE, at * SECOND);
            counts.add(RATE, at * SECOND);
        }
        counts.forget(RATE, now * SECOND);
        let state = counts.state(RATE, now * SECOND);
        (state.left, state.retry_after.as_secs(), state.whole_in.as_secs())
    }

    #[test]
    fn the_current_slice_counts_with_the_ten_before_it() {
        for (calls, now, expected) in [
            (&[][..], 100, (3, 0, 0)),
            (&[100], 100, (2, 0, 11)),
            (&[100, 100, 100], 100, (0, 11, 11)),
            (&[100, 104, 109], 110, (0, 1, 10)),
            (&[100, 104, 109], 111, (1, 0, 9)),
            (&[100, 104, 109], 120, (3, 0, 0)),
            (&[100, 100, 100, 100], 105, (0, 6, 6)),
            (&[100, 101, 101, 101], 105, (0, 7, 7)),
        ] {
            assert_eq!(state(calls, now), expected, "{calls:?} at {now}");
        }
    }

    #[test]
    fn calls_counted_by_a_clock_that_was_ahead_are_forgotten_unless_they_may_be_recent() {
        for (calls, now, expected) in [
            (&[105, 105, 105][..], 100, (0, 16, 16)),
            (&[110, 110, 110], 100, (0, 21, 21)),
            (&[111, 111, 111], 100, (3, 0, 0)),
            (&[3700, 3700, 3700], 100, (3, 0, 0)),
        ] {
            assert_eq!(state(calls, now), expected, "{calls:?} at {now}");
        }
    }

    #[test]
    fn no_window_sees_more_than_the_limit_whatever_the_times_of_the_calls() {
        let mut random = 7_u64;
        let (mut counts, mut counted, mut now) = (SliceCounts::default(), Vec::new(), 0_u64);
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Bursts at the same time, steps within a slice, and pauses up to the edge of the window.
            now += [0, 1, 70_000, 999_999, 10_000_000][(random >> 33) as usize % 5];
            counts.forget(RATE, now);
            if counts.state(RATE, now).retry_after.is_zero() {
                counts.add(RATE, now);
                counted.push(now);
            }
        }
        assert!(counted.len() > 1000, "{}", counted.len());
        for (first, last) in counted.iter().zip(&counted[RATE.calls as usize..]) {
            assert!(last - first >= 10 * SECOND, "four calls between {first} and {last}");
        }
    }
}

//! Inputs that this node cannot decode: another version of the application may, so they come back for a while.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use phalanx_core::bound_reached;
use tokio::time::Instant;

/// The pauses before such a job comes back: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Most jobs that are remembered; beyond, each comes back after the first pause.
const MAX_JOBS: usize = 10_000;

/// The jobs that came with such an input, by their text: jobs of other programs have no id.
#[derive(Debug, Default)]
pub(crate) struct UndecodableJobs(HashMap<u64, Seen>);

#[derive(Debug)]
struct Seen {
    first: Instant,
    last: Instant,
    times: u32,
}

impl UndecodableJobs {
    /// When a job comes back that cannot be decoded; `None` if it has come back for as long as `grace`.
    pub(crate) fn pause(&mut self, text: &[u8], now: Instant, grace: Duration) -> Option<Duration> {
        let (shortest, longest) = PAUSES;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let job = hasher.finish();
        if !self.0.contains_key(&job) && self.0.len() >= MAX_JOBS {
            self.0.retain(|_, seen| now - seen.last < 2 * longest);
            if self.0.len() >= MAX_JOBS {
                bound_reached("undecodable_jobs");
                return Some(shortest);
            }
        }
        let seen = self.0.entry(job).or_insert(Seen { first: now, last: now, times: 0 });
        if now - seen.first >= grace {
            self.0.remove(&job);
            return None;
        }
        seen.last = now;
        seen.times += 1;
        Some((shortest * 2_u32.pow((seen.times - 1).min(10))).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_until_the_grace_is_over() {
        let (mut jobs, start) = (UndecodableJobs::default(), Instant::now());
        let grace = Duration::from_secs(150);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = jobs.pause(b"a", now, grace);
            assert_eq!(pause, Some(Duration::from_secs(seconds)));
            now += pause.unwrap_or_default();
        }
        assert_eq!(jobs.pause(b"b", now, grace), Some(Duration::from_secs(1)), "each job has its own pauses");
        assert_eq!(jobs.pause(b"a", now, grace), None);
        assert_eq!(jobs.pause(b"a", now, grace), Some(Duration::from_secs(1)), "it was retried by hand");
        assert_eq!(jobs.pause(b"c", now, Duration::ZERO), None);
    }

    #[test]
    fn beyond_the_bound_jobs_come_back_all_the_same() {
        let (mut jobs, now) = (UndecodableJobs::default(), Instant::now());
        for n in 0..MAX_JOBS + 10 {
            assert_eq!(jobs.pause(&n.to_le_bytes(), now, PAUSES.1), Some(PAUSES.0));
        }
        assert_eq!(jobs.0.len(), MAX_JOBS);
    }
}

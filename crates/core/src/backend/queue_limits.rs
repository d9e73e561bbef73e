//! Limits of a queue in the whole cluster: how many of its jobs run at once, and how many begin in a time.
//!
//! They are a part of the application, as its tasks are: each call of a worker carries those that its node knows, so none has
//! to be stored, or written again after a loss. Whether a node counts the attempts of a queue is therefore the same at the
//! fetch and at the end of each of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use humantime_serde::re::humantime::format_duration;

/// The limits of the attempts of a queue in the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most attempts that run at once.
    pub running: Option<u32>,
    /// Most attempts that begin in a time.
    pub rate: Option<JobRate>,
}

/// A number of attempts in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRate {
    /// The attempts.
    pub jobs: u32,
    /// The time.
    pub window: Duration,
}

/// A queue from which jobs are not fetched in their order alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedQueue {
    /// Its name.
    pub queue: Arc<str>,
    /// Its limits.
    pub limits: QueueLimits,
    /// Whether some of its jobs take turns by their keys.
    pub takes_turns: bool,
}

impl LimitedQueue {
    /// A queue with these limits, in which no jobs take turns.
    pub fn new(queue: impl Into<Arc<str>>, limits: QueueLimits) -> Self {
        Self { queue: queue.into(), limits, takes_turns: false }
    }
}

/// Most keys of a queue by which jobs take turns; those of further keys share one.
pub const MAX_TURN_KEYS: usize = 1000;

/// The key of jobs of further keys.
pub const OTHER_TURNS: &str = "~";

/// A queue in which jobs wait because a limit of it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUpQueue {
    /// Its name.
    pub queue: Arc<str>,
    /// When the next job may begin by its rate; `None` if the end of one that runs makes room.
    pub opens_in: Option<Duration>,
}

impl QueueLimits {
    /// None.
    pub const NONE: Self = Self { running: None, rate: None };

    /// Most attempts that may run at once.
    pub const MAX_RUNNING: u32 = 1_000_000;

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Why a queue cannot have these.
    pub(crate) fn mistake(&self) -> Option<String> {
        match self.running {
            Some(0) => return Some("limit = 0: no job would ever run".to_owned()),
            Some(limit) if limit > Self::MAX_RUNNING => {
                return Some(format!("limit = {limit}: {} at most", Self::MAX_RUNNING));
            }
            _ => {}
        }
        self.rate.and_then(JobRate::mistake)
    }
}

impl JobRate {
    /// The shortest time.
    pub const MIN_WINDOW: Duration = Duration::from_millis(100);

    /// The longest time.
    pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// Most attempts.
    pub const MAX_JOBS: u32 = 1_000_000;

    fn mistake(self) -> Option<String> {
        let reason = match self {
            Self { jobs: 0, .. } => "no job would ever run",
            Self { jobs, .. } if jobs > Self::MAX_JOBS => "1000000 jobs at most",
            Self { window, .. } if window < Self::MIN_WINDOW || window > Self::MAX_WINDOW => {
                "the time of a rate is from 100ms to 366 days"
            }
            _ => return None,
        };
        Some(format!("rate = \"{self}\": {reason}"))
    }

    /// The time from one attempt to the next where they are even, in microseconds.
    pub fn interval_us(self) -> f64 {
        self.window.as_secs_f64() * 1e6 / f64::from(self.jobs.max(1))
    }

    /// How often a node looks whether the next attempt may begin.
    const LOOK_PERIOD: Duration = Duration::from_millis(10);

    /// How many attempts may begin together after a pause: a twentieth, so that no such time sees more than a twentieth beyond the
    /// rate; of times below 200 ms as many as are due from one look of a node to its next, a tenth at most, as it would use half of the
    /// rate otherwise.
    pub fn burst(self) -> u32 {
        let from_look_to_look = Self::LOOK_PERIOD.as_secs_f64() * 1e6 / self.interval_us();
        (self.jobs / 20).max(from_look_to_look as u32).max(1)
    }
}

impl fmt::Display for JobRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.jobs, format_duration(self.window).to_string().replace(' ', ""))
    }
}

impl fmt::Display for QueueLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.map(|limit| format!("limit = {limit}"));
        let rate = self.rate.map(|rate| format!("rate = \"{rate}\""));
        let all: Vec<String> = running.into_iter().chain(rate).collect();
        f.write_str(if all.is_empty() { "no limit" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// The attempts of a rate that are paid for: how a store counts them, in a number that it keeps for each queue.
///
/// Each attempt costs the time from one to the next. What was not used is kept up to the burst.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PaidTime {
    until_us: f64,
}

impl PaidTime {
    /// How many attempts may begin now.
    pub(crate) fn room(&mut self, rate: JobRate, now_us: u64) -> u32 {
        let (now_us, interval_us) = (now_us as f64, rate.interval_us());
        // Not beyond now either: a clock that was set back would hold the queue up until its old time.
        let unused_us = interval_us * f64::from(rate.burst());
        self.until_us = self.until_us.max(now_us - unused_us).min(now_us);
        ((now_us - self.until_us) / interval_us) as u32
    }

    /// Pays for attempts; returns after which time the next one may begin.
    pub(crate) fn pay(&mut self, rate: JobRate, attempts: u32, now_us: u64) -> Duration {
        self.until_us += rate.interval_us() * f64::from(attempts);
        let left_us = self.until_us + rate.interval_us() - now_us as f64;
        Duration::from_micros(left_us.max(0.0).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn rate(jobs: u32, ms: u64) -> JobRate {
        JobRate { jobs, window: Duration::from_millis(ms) }
    }

    #[test]
    fn no_window_sees_more_than_a_burst_beyond_the_rate_and_a_long_time_sees_all_of_it() {
        for (rate, look_us) in [
            (rate(100, 1000), 1_300),
            (rate(5, 1000), 10_000),
            (rate(20_000, 60_000), 9_999),
            (rate(100, 100), 10_000),
            (rate(2_000, 100), 9_999),
        ] {
            let (mut paid, mut begun) = (PaidTime::default(), Vec::<u64>::new());
            let window_us = rate.window.as_micros() as u64;
            for now_us in (1_000_000_000..1_000_000_000 + 5 * window_us).step_by(look_us) {
                let room = paid.room(rate, now_us);
                paid.pay(rate, room, now_us);
                begun.extend((0..room).map(|_| now_us));
            }
            let most =
                begun.iter().map(|from| begun.iter().filter(|at| (*from..from + window_us).contains(*at)).count());
            let most = if begun.len() > 2000 { None } else { most.max() };
            assert!(most.is_none_or(|most| most < (rate.jobs + rate.burst()) as usize), "{rate}: {most:?}");
            let share = begun.len() as f64 / (5.0 * f64::from(rate.jobs));
            assert!((0.97..1.03).contains(&share) || rate.jobs < 20, "{rate}: {share} of the rate");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up_for_long() {
        let (rate, mut paid) = (rate(10, 1000), PaidTime::default());
        assert_eq!(paid.room(rate, 9_000_000_000), 1);
        assert_eq!(paid.pay(rate, 1, 9_000_000_000), Duration::from_millis(100));
        assert_eq!(paid.room(rate, 1_000_000_000), 0);
        assert_eq!(paid.room(rate, 1_000_100_000), 1);
    }

    #[test]
    fn limits_that_cannot_be_say_why() {
        let hour = Duration::from_secs(3600);
        for (limits, expected) in [
            (QueueLimits { running: Some(5), rate: Some(rate(100, 1000)) }, None),
            (QueueLimits { running: Some(0), rate: None }, Some("limit = 0: no job would ever run")),
            (QueueLimits { running: Some(2_000_000), rate: None }, Some("limit = 2000000: 1000000 at most")),
            (QueueLimits { running: None, rate: Some(rate(0, 1000)) }, Some("rate = \"0/1s\": no job would ever run")),
            (
                QueueLimits { running: None, rate: Some(rate(1, 99)) },
                Some("rate = \"1/99ms\": the time of a rate is from 100ms to 366 days"),
            ),
            (
                QueueLimits { running: None, rate: Some(JobRate { jobs: 2_000_000, window: hour }) },
                Some("rate = \"2000000/1h\": 1000000 jobs at most"),
            ),
        ] {
            assert_eq!(limits.mistake().as_deref(), expected);
        }
    }
}

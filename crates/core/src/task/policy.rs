//! When a job that failed runs again.

use std::time::Duration;

use crate::error::ErrorKind;

/// How often a task is attempted, and the pauses between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Most attempts; 1 means that it is not repeated.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from one attempt to the next.
    pub backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// The share of a pause that is random, from 0 to 1: jobs that failed together are not repeated together.
    pub jitter: f32,
    /// The kinds of errors after which it is not repeated.
    pub not_retried: &'static [ErrorKind],
}

impl RetryPolicy {
    /// Five attempts, pauses from a second to ten minutes, a fifth of them random, all kinds of errors repeated.
    pub const DEFAULT: Self = Self {
        attempts: 5,
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(600),
        jitter: 0.2,
        not_retried: &[],
    };

    /// The pause after so many attempts, where `random` is from 0 to 1.
    pub fn pause(&self, attempts: u32, random: f32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(63);
        let full = self.backoff.as_secs_f64() * 2_f64.powi(doublings as i32);
        let full = full.min(self.max_backoff.as_secs_f64());
        Duration::from_secs_f64(full * f64::from(1.0 - self.jitter * random))
    }

    /// Whether a job may be attempted again after an error of that kind.
    pub fn repeats(&self, attempts: u32, kind: ErrorKind) -> bool {
        attempts < self.attempts && !self.not_retried.contains(&kind)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_shortens_them() {
        let ms = Duration::from_millis;
        let policy = RetryPolicy { backoff: ms(100), max_backoff: ms(1000), jitter: 0.5, ..RetryPolicy::DEFAULT };
        for (attempts, random, pause) in [
            (0, 0.0, 100),
            (1, 0.0, 100),
            (2, 0.0, 200),
            (3, 0.0, 400),
            (5, 0.0, 1000),
            (u32::MAX, 0.0, 1000),
            (1, 1.0, 50),
            (5, 0.5, 750),
        ] {
            assert_eq!(policy.pause(attempts, random), ms(pause), "{attempts} {random}");
        }
    }

    #[test]
    fn a_job_is_repeated_up_to_its_attempts_and_not_after_the_kinds_that_it_names() {
        let policy = RetryPolicy { attempts: 3, not_retried: &[ErrorKind::NotFound], ..RetryPolicy::DEFAULT };
        for (attempts, kind, repeats) in [
            (1, ErrorKind::Internal, true),
            (2, ErrorKind::Timeout, true),
            (3, ErrorKind::Internal, false),
            (4, ErrorKind::Internal, false),
            (1, ErrorKind::NotFound, false),
        ] {
            assert_eq!(policy.repeats(attempts, kind), repeats, "{attempts} {kind:?}");
        }
    }
}

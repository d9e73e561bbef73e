//! When a job is due.

use std::time::Duration;

use crate::error::{ActionError, Detail};

/// The longest delay: ten years.
pub const MAX_DELAY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// When a job is due, as its enqueuer says it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Due {
    #[default]
    Now,
    In(Duration),
    /// A number of milliseconds from now, as a client sent it.
    InMs(f64),
    /// Unix time in milliseconds.
    AtMs(u64),
}

impl Due {
    /// The time at which a job is due, Unix time in milliseconds; `None` for now. A time in the past is now.
    pub(super) fn at_ms(self, now_ms: u64) -> Result<Option<u64>, ActionError> {
        let max_ms = MAX_DELAY.as_millis() as u64;
        let delay_ms = match self {
            Self::Now => return Ok(None),
            Self::In(delay) => u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            Self::InMs(delay) if delay >= 0.0 => delay as u64, // infinity is more than any number
            Self::InMs(_) => return Err(invalid("must be a number of milliseconds, not negative")),
            Self::AtMs(at_ms) => at_ms.saturating_sub(now_ms),
        };
        if delay_ms > max_ms {
            return Err(invalid("must be ten years at most"));
        }
        Ok((delay_ms > 0).then(|| now_ms + delay_ms))
    }
}

fn invalid(message: &'static str) -> ActionError {
    ActionError::invalid_input(vec![Detail::new("delay", "range", message)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_due_now_later_or_never() {
        const NOW: u64 = 1_000_000;
        let years = MAX_DELAY.as_millis() as u64;
        for (due, expected) in [
            (Due::Now, Ok(None)),
            (Due::In(Duration::ZERO), Ok(None)),
            (Due::In(Duration::from_millis(5)), Ok(Some(NOW + 5))),
            (Due::In(Duration::from_nanos(1)), Ok(None)),
            (Due::In(MAX_DELAY), Ok(Some(NOW + years))),
            (Due::In(MAX_DELAY + Duration::from_millis(1)), Err("delay")),
            (Due::In(Duration::MAX), Err("delay")),
            (Due::InMs(1.5), Ok(Some(NOW + 1))),
            (Due::InMs(0.0), Ok(None)),
            (Due::InMs(-0.5), Err("delay")),
            (Due::InMs(f64::NAN), Err("delay")),
            (Due::InMs(f64::INFINITY), Err("delay")),
            (Due::InMs(f64::NEG_INFINITY), Err("delay")),
            (Due::AtMs(0), Ok(None)),
            (Due::AtMs(NOW), Ok(None)),
            (Due::AtMs(NOW + 1), Ok(Some(NOW + 1))),
            (Due::AtMs(NOW + years + 1), Err("delay")),
            (Due::AtMs(u64::MAX), Err("delay")),
        ] {
            let found = due.at_ms(NOW);
            let path = |error: &ActionError| error.details()[0].path.clone();
            assert_eq!(found.as_ref().map_err(path), expected.as_ref().map_err(|path| (*path).to_owned()), "{due:?}");
        }
    }
}

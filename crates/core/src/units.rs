//! Durations by their units: `5 * SECOND`.

use std::time::Duration;

/// A second.
pub const SECOND: Duration = Duration::from_secs(1);

/// A minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// An hour.
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// Whole seconds, rounded up.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    (time.as_millis() as u64).div_ceil(1000)
}

/// A day of 24 hours.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

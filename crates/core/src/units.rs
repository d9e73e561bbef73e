//! Durations by their units: `5 * SECOND`.

use std::time::Duration;

/// A second.
pub const SECOND: Duration = Duration::from_secs(1);

/// A minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// An hour.
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// A day of 24 hours.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

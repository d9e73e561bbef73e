//! The section `session`: how long sessions last, their cookie, their bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// A session that is not used for so long ends.
    #[serde(with = "days")]
    pub idle: Duration,
    /// A session ends so long after its sign-in, however much it is used.
    #[serde(with = "days")]
    pub absolute: Duration,
    /// Most sessions in the memory of a node without Redis; beyond, the one that was unused for longest ends.
    pub max_in_memory: usize,
}

/// Durations, of which whole days are written as such: 90 days are 2 months, 29 days and some hours elsewhere.
mod days {
    use std::time::Duration;

    use serde::Serializer;

    pub(super) use humantime_serde::deserialize;

    const SECONDS: u64 = 24 * 60 * 60;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
        if seconds == 0 || !seconds.is_multiple_of(SECONDS) || nanos != 0 {
            return humantime_serde::serialize(duration, serializer);
        }
        serializer.serialize_str(&format!("{}d", seconds / SECONDS))
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            idle: 14 * DAY,
            absolute: 90 * DAY,
            max_in_memory: 100_000,
        }
    }
}

//! The section `session`: how long sessions last, their cookie, their bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cookie::SameSite;

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
    /// Which requests of other sites carry the cookie.
    pub same_site: SameSite,
    /// Whether a client may send the id as `Authorization: Bearer …`, or in the subprotocol of an upgrade, instead of in the
    /// cookie.
    pub bearer: bool,
    /// New sessions a second for one address, on each node; beyond, 429; 0 means no limit. Renewals count.
    pub new_per_second: u32,
    /// New sessions that an address may have at once after a pause.
    pub new_burst: u32,
    /// Most sessions in the memory of a node without Redis; beyond, the one that was unused for longest ends.
    pub max_in_memory: usize,
}

impl SessionSettings {
    /// Most bytes of a session's value as JSON; beyond, `payload_too_large`.
    pub const MAX_VALUE_BYTES: usize = 16 * 1024;

    /// Most sessions of which a node has updates under way. Updates of further ones contend for the version of the session, as
    /// those of several nodes do.
    pub const MAX_UPDATED: usize = 10_000;

    /// Most of the sessions ended within an hour that a node remembers, to end them again if Redis comes back with older data;
    /// beyond, the oldest are forgotten.
    pub const MAX_ENDED: usize = 10_000;

    /// How much of `idle` a session may have used before a call writes that it is in use: most calls only read.
    pub fn idle_step(&self) -> Duration {
        (self.idle / 10).min(Duration::from_secs(60))
    }
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
            same_site: SameSite::Lax,
            bearer: false,
            new_per_second: 10,
            new_burst: 100,
            max_in_memory: 100_000,
        }
    }
}

//! Rate limits over Redis.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::Script;
use phalanx_core::backend::{BackendError, LimitDecision, LimitState, LimitStore, LimitedCall};

use crate::client::RedisClient;
use crate::keys::Keys;

/// The counts that all nodes share: a key for each subject of a limit, and one script, by the clock of Redis.
pub struct RedisLimits {
    client: RedisClient,
    keys: Keys,
    count: Script,
}

impl RedisLimits {
    /// Stores counts under these keys.
    pub fn new(client: RedisClient, keys: Keys) -> Self {
        Self { client, keys, count: Script::new(include_str!("lua/limits/count.lua")) }
    }
}

impl RedisLimits {
    /// The keys of a call, for people: one of them is meant.
    fn keys_of(&self, calls: &[LimitedCall]) -> String {
        let key = |call: &LimitedCall| self.keys.limit(&call.limit, &call.subject, call.rate.window);
        calls.iter().map(key).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisLimits")
    }
}

#[async_trait]
impl LimitStore for RedisLimits {
    async fn count(&self, calls: &[LimitedCall]) -> Result<LimitDecision, BackendError> {
        let mut script = self.count.prepare_invoke();
        for LimitedCall { limit, subject, rate } in calls {
            script.key(self.keys.limit(limit, subject, rate.window)).arg(rate.calls).arg(rate.slice_us());
        }
        // Not repeated: a call that was counted and not answered would count twice.
        let reply: Vec<u64> = self.client.run("", &script).await.map_err(|error| match error {
            BackendError::WrongKind { .. } => BackendError::WrongKind { key: self.keys_of(calls) },
            error => error,
        })?;
        let mut numbers = reply.into_iter();
        let is_counted = numbers.next() == Some(1);
        let state = |call: &LimitedCall| {
            let [used, retry_us, whole_us] = [numbers.next()?, numbers.next()?, numbers.next()?];
            Some(LimitState {
                left: u32::try_from(u64::from(call.rate.calls).saturating_sub(used)).unwrap_or(u32::MAX),
                retry_after: Duration::from_micros(retry_us),
                whole_in: Duration::from_micros(whole_us),
            })
        };
        let states: Option<Vec<LimitState>> = calls.iter().map(state).collect();
        let states = states.ok_or_else(|| BackendError::unavailable("the reply of a limit is too short"))?;
        Ok(LimitDecision { is_counted, states })
    }
}

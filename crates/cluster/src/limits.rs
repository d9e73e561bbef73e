//! Rate limits over Redis.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Buf;
use deadpool_redis::redis::{Cmd, Script};
use phalanx_core::backend::{BackendError, LimitDecision, LimitState, LimitStore, LimitedCall};

use crate::client::RedisClient;
use crate::keys::Keys;
use crate::shared_calls::{SharedCalls, SharedReplies, SharedScript};

/// The counts that all nodes share: a key for each subject of a limit, and one script, by the clock of Redis.
pub struct RedisLimits(SharedCalls<LimitCounts>);

impl RedisLimits {
    /// Stores counts under these keys.
    pub fn new(client: RedisClient, keys: Keys) -> Self {
        let home = client.home();
        let script = Script::new(include_str!("lua/limits/count.lua"));
        Self(SharedCalls::new(LimitCounts { client, keys, script }, home))
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
        self.0.call(calls.into()).await
    }
}

/// The counts of calls of clients, each by all of its limits.
struct LimitCounts {
    client: RedisClient,
    keys: Keys,
    script: Script,
}

impl LimitCounts {
    fn key(&self, call: &LimitedCall) -> String {
        self.keys.limit(&call.limit, &call.subject, call.rate.window)
    }

    /// Takes the decision about a call as the script packs it; `None` if it is not packed so.
    fn unpack(&self, calls: &[LimitedCall], reply: &mut &[u8]) -> Option<Result<LimitDecision, BackendError>> {
        let is_counted = match reply.try_get_u8().ok()? {
            2 => {
                let key = calls.iter().map(|call| self.key(call)).collect::<Vec<_>>().join(", ");
                return Some(Err(BackendError::WrongKind { key }));
            }
            is_counted => is_counted == 1,
        };
        let state = |call: &LimitedCall| {
            let mut number = || reply.try_get_u64().ok();
            let [used, retry_us, whole_us] = [number()?, number()?, number()?];
            Some(LimitState {
                left: u32::try_from(u64::from(call.rate.calls).saturating_sub(used)).unwrap_or(u32::MAX),
                retry_after: Duration::from_micros(retry_us),
                whole_in: Duration::from_micros(whole_us),
            })
        };
        Some(Ok(LimitDecision { is_counted, states: calls.iter().map(state).collect::<Option<_>>()? }))
    }
}

impl SharedScript for LimitCounts {
    type Item = Box<[LimitedCall]>;
    type Reply = LimitDecision;

    async fn run(&self, items: &[Self::Item]) -> Result<SharedReplies<Self::Reply>, BackendError> {
        let count: usize = items.iter().map(|calls| calls.len()).sum();
        let mut command = Cmd::with_capacity(4 + count, 64 + 96 * count);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(count);
        let mut calls = Vec::with_capacity(4 * items.len() + 12 * count);
        for limits in items {
            calls.extend_from_slice(&(limits.len() as u32).to_be_bytes());
            for limit in limits {
                command.arg(self.key(limit));
                calls.extend_from_slice(&limit.rate.calls.to_be_bytes());
                calls.extend_from_slice(&(limit.rate.slice_us() as f64).to_be_bytes());
            }
        }
        command.arg(calls);
        // Not repeated: a call that was counted and not answered would count twice.
        let reply: Vec<u8> = self.client.evaluate("", &self.script, &command).await?;
        let (mut reply, unexpected) = (&reply[..], "redis returned something other than the counts of limits");
        let decision = |calls: &Self::Item| self.unpack(calls, &mut reply);
        let decisions: Option<_> = items.iter().map(decision).collect();
        decisions.ok_or_else(|| BackendError::unavailable(unexpected))
    }
}

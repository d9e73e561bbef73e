//! Jobs that failed in no attempt, for a node that knows their tasks.

use deadpool_redis::redis::Value;
use phalanx_core::backend::BackendError;
use phalanx_core::bound_reached;
use tracing::warn;

use bytes::Bytes;

use super::call::{ReplyItems, unexpected_reply};
use super::{RedisTasks, report_spoilt};

/// The most bytes of records that are taken at once, but for one that has more by itself.
const MAX_BYTES: usize = 256 * 1024;

/// Says that records were dropped because there are too many of a class.
pub(super) fn report_dropped(dropped: u64) {
    if dropped > 0 {
        bound_reached("unattended_failures");
        warn!(dropped, "jobs failed in no attempt, and no node knows their tasks: their on_failed will not run");
    }
}

impl RedisTasks {
    pub(super) async fn take_unattended_records(
        &self,
        classes: &[&str],
        most: usize,
    ) -> Result<Vec<Bytes>, BackendError> {
        let keys = &self.keys;
        // Nearly always there are none.
        let mut there = self.names(keys.unattended()).await?;
        there.retain(|class| classes.contains(&class.as_str()));
        if there.is_empty() || most == 0 {
            return Ok(Vec::new());
        }
        let all = [keys.unused(), keys.unattended(), keys.unattended_of()];
        let mut call = self.scripts.take_unattended.call(&all);
        call.arg(most).arg(MAX_BYTES);
        for class in &there {
            call.arg(class);
        }
        let reply: Value = call.run(&*self.own.client().await?).await?;
        let mut items = ReplyItems::of(reply).ok_or_else(unexpected_reply)?;
        let mut records = items.list().ok_or_else(unexpected_reply)?;
        report_spoilt(&items.texts().ok_or_else(unexpected_reply)?);
        Ok(std::iter::from_fn(|| records.bytes()).collect())
    }
}

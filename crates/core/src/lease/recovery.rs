//! The recovery pass: does what failed while the backend was away, or was lost with it.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::{info, warn};

use super::LeaseParts;
use crate::backend::BackendError;
use crate::id::Generation;
use crate::lease_state::RestoreReason;

/// Connections that are listed again at the same time.
const AT_ONCE: usize = 64;

/// Starts a pass for `generation`, if there is something to do and none runs.
pub(super) fn spawn(parts: &LeaseParts, generation: Generation) {
    let is_needed = parts.state.needs_restore() || parts.rooms.need_recovery();
    if !is_needed || !parts.state.try_start_recovery() {
        return;
    }
    let parts = parts.clone();
    parts.shutdown.clone().spawn_own(async move {
        tokio::select! {
            () = parts.shutdown.closed() => {}
            () = recover(&parts, generation) => {}
        }
    });
}

/// Stores and publishes everything that failed when it happened, and lists members that may not be listed. What fails again
/// is left to the pass after the next renewal. A pass under a generation that was reaped meanwhile is refused by the
/// backend, so it takes no member out of a room that is about to be created again.
async fn recover(parts: &LeaseParts, generation: Generation) {
    let missed = parts.rooms.take_missed_messages().then(RestoreReason::default);
    let why = parts.state.take_restore_request().or(missed);
    let pass = async {
        parts.rooms.settle_leaves().await?;
        parts.rooms.settle_destroys().await?;
        match why {
            Some(why) => restore(parts, generation, why).await,
            None => Ok(()),
        }
    };
    if let Err(error) = pass.await {
        warn!(%error, "rooms are not recovered yet");
        why.into_iter().for_each(|why| parts.state.request_restore(why));
    }
    parts.state.end_recovery();
}

/// Lists all members of this node again.
async fn restore(parts: &LeaseParts, generation: Generation, why: RestoreReason) -> Result<(), BackendError> {
    if why.lost {
        parts.rooms.restore_start_rooms().await?;
    }
    let connections = parts.connections.all();
    let count = connections.len();
    let each = stream::iter(connections).map(Ok);
    each.try_for_each_concurrent(AT_ONCE, |connection| async move {
        parts.rooms.restore(&connection, generation, why).await
    })
    .await?;
    info!(connections = count, "rooms and their members are listed again");
    Ok(())
}

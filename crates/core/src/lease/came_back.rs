//! A node that was reaped while it ran: it neither died nor, perhaps, is to blame, and the jobs that it ran are not poison.

use tokio::time::sleep;
use tracing::{debug, warn};

use super::{LeaseParts, RENEWAL};
use crate::id::Generation;

/// How often the return is reported to the store of jobs, a second apart, until it answers. Without it the reap counts as a
/// death.
const TRIES: usize = 60;

/// Has the store of jobs count the reap of this generation of the node as a stall.
pub(super) fn spawn(parts: &LeaseParts, reaped: Generation) {
    let Some(tasks) = parts.tasks.clone() else { return };
    let reporting = async move {
        for _ in 0..TRIES {
            match tasks.came_back(reaped).await {
                Ok(()) => return,
                Err(error) => debug!(%error, %reaped, "the store of jobs does not know yet that this node came back"),
            }
            sleep(RENEWAL).await;
        }
        warn!(%reaped, "this node came back, and its jobs count that as a death");
    };
    let shutdown = parts.shutdown.clone();
    parts.shutdown.spawn_own(async move {
        tokio::select! {
            () = shutdown.closed() => {}
            () = reporting => {}
        }
    });
}

//! The promotion of delayed jobs on a node that runs none. The loop of a worker does it by the way.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::Engine;
use phalanx_core::backend::TaskStore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::housekeeping::PROMOTION_PAUSE;

/// The longest pause between two promotions, and that after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Promotes jobs when they are due, until the node stops.
pub(crate) async fn promote(engine: Engine, store: Arc<dyn TaskStore>, stop: CancellationToken) {
    let promoting = async {
        loop {
            let pause = match store.promote().await {
                Ok(promotion) if promotion.moved > 0 => continue, // more may be due
                Ok(promotion) => {
                    let now_ms = engine.clock().now_ms();
                    let left = |due_ms: u64| Duration::from_millis(due_ms.saturating_sub(now_ms));
                    promotion.next_due_ms.map_or(LONGEST_PAUSE, left).min(LONGEST_PAUSE)
                }
                Err(error) => {
                    warn!(%error, "delayed jobs were not promoted");
                    LONGEST_PAUSE
                }
            };
            sleep(PROMOTION_PAUSE).await;
            tokio::select! {
                () = sleep(pause.saturating_sub(PROMOTION_PAUSE)) => {}
                () = store.woken() => {}
            }
        }
    };
    stop.run_until_cancelled(promoting).await;
}

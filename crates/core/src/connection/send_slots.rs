//! Backpressure of a client that publishes: few of its messages may be in flight at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use super::Connection;
use crate::metrics::bound_reached;

/// How long a sender waits for the next of its messages in flight to be delivered.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A message of a connection that counts as in flight; dropped before it is published, it no longer does.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a Connection);

impl Connection {
    /// Counts a message as in flight, once fewer than `limit` are. If none of them arrives for [`LONGEST_WAIT`], none
    /// will: they were lost, or went to rooms without members on this node.
    pub(crate) async fn acquire_send_slot(&self, limit: u32) -> InFlight<'_> {
        loop {
            let delivered = self.0.delivered.notified();
            let free = |n: u32| (n < limit).then_some(n + 1);
            if self.0.in_flight.fetch_update(Relaxed, Relaxed, free).is_ok() || self.closing().is_some() {
                return InFlight(self);
            }
            bound_reached("rooms.max_undelivered");
            if timeout(LONGEST_WAIT, delivered).await.is_err() {
                self.reset_in_flight();
            }
        }
    }

    /// Ends the count of one message: it was delivered on this node, or never published.
    pub(crate) fn on_delivered(&self) {
        let before = self.0.in_flight.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        if before.is_ok() {
            self.0.delivered.notify_waiters();
        }
    }

    /// Ends the count of all messages: they may have been missed.
    pub(crate) fn reset_in_flight(&self) {
        self.0.in_flight.store(0, Relaxed);
        self.0.delivered.notify_waiters();
    }
}

impl InFlight<'_> {
    /// Leaves the count to the message's delivery.
    pub(crate) fn published(self) {
        std::mem::forget(self);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.on_delivered();
    }
}

//! Closes all connections with a tag, paced.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep_until};

use super::TagsInner;
use crate::connection::Connection;
use crate::id::TagId;
use crate::protocol::CloseReason;

/// The longest pause between two connections. A user's few are closed at once, and not over all of `websocket.drain`.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

impl TagsInner {
    /// Closes the connections of this node with a tag as a stopping node closes its own: in random order and evenly spaced
    /// over `websocket.drain` at most, so that not all clients come back at once. Returns how many they are.
    ///
    /// Each is in the turn of one such call at most, so that calls that are repeated add up to nothing.
    pub(super) fn close_paced(self: &Arc<Self>, tag: TagId, reason: CloseReason) -> usize {
        let members = self.members(tag);
        let count = members.len();
        let is_new = |member: &Connection| !std::mem::replace(&mut member.own_tags().close_due, true);
        let mut waiting: Vec<Connection> = members.into_iter().filter(is_new).collect();
        waiting.shuffle(&mut rand::rng());
        let pause = pause_between(waiting.len(), self.parts.config.websocket.drain);
        if pause.is_zero() || waiting.len() <= 1 {
            waiting.iter().for_each(|member| member.close(reason));
            return count;
        }
        let shutdown = self.parts.shutdown.clone();
        self.parts.shutdown.spawn_own(async move {
            let begin = Instant::now();
            let closing = async {
                for (number, member) in (0..).zip(&waiting) {
                    sleep_until(begin + pause * number).await;
                    member.close(reason);
                }
            };
            tokio::select! {
                () = shutdown.closed() => {}
                () = closing => {}
            }
        });
        count
    }
}

fn pause_between(connections: usize, drain: Duration) -> Duration {
    (drain / u32::try_from(connections.max(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_closed_at_once_and_many_over_the_time_of_a_drain() {
        let drain = Duration::from_secs(5);
        for (connections, micros) in [(0, 10_000), (3, 10_000), (500, 10_000), (1000, 5000), (10_000, 500)] {
            assert_eq!(pause_between(connections, drain).as_micros(), micros, "{connections}");
        }
        assert_eq!(pause_between(1000, Duration::ZERO), Duration::ZERO);
    }
}

//! One frame to many connections.

use bytes::Bytes;
use tokio::task::yield_now;

use super::{Connection, Frame};

/// Most connections whose tasks one broadcast wakes at once. Others wait for as long as all of these write.
const MOST_AT_ONCE: usize = 1024;

/// The connections whose tasks are woken before other tasks run, if there are more.
const STEP: usize = 2;

/// Queues a frame for `count` members, and wakes their tasks; if they are very many, those of the last are left to
/// [`PacedWakes`]. Each outbox has the frame when this returns, so no later one overtakes it.
pub(crate) fn push_to_all<'a>(
    members: impl Iterator<Item = &'a Connection>,
    count: usize,
    frame: &Bytes,
) -> Option<PacedWakes> {
    if count <= MOST_AT_ONCE {
        for member in members {
            member.push(Frame::Text(frame.clone()));
        }
        return None;
    }
    let is_idle = |member: &&Connection| member.queue_and_check_idle(Frame::Text(frame.clone()));
    let idle: Vec<Connection> = members.filter(is_idle).cloned().collect();
    (!idle.is_empty()).then_some(PacedWakes { idle })
}

/// Connections that have something to write and do not know it yet. Dropping this wakes them all.
#[must_use = "their tasks write once they are woken"]
pub(crate) struct PacedWakes {
    idle: Vec<Connection>,
}

impl PacedWakes {
    /// Wakes a few at a time, and lets other tasks run in between: ten thousand writes take a core tens of milliseconds.
    pub(crate) async fn run(mut self) {
        while !self.idle.is_empty() {
            self.wake_last(STEP);
            yield_now().await;
        }
    }

    fn wake_last(&mut self, count: usize) {
        let left = self.idle.len().saturating_sub(count);
        self.idle.drain(left..).for_each(|connection| connection.wake());
    }
}

impl Drop for PacedWakes {
    fn drop(&mut self) {
        self.wake_last(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::connection::testing::{CountedWakes, connection};
    use crate::connection::{OutboxItem, OutboxLimit};

    const MANY: usize = MOST_AT_ONCE + 100;

    /// Connections whose tasks wait, with the number of those that were woken.
    fn crowd(count: usize) -> (Vec<Connection>, Arc<CountedWakes>) {
        let wakes = Arc::new(CountedWakes::default());
        let member = |number: usize| {
            let member = connection(number, OutboxLimit { frames: 4, bytes: 100 });
            member.register(&wakes.waker());
            member
        };
        ((0..count).map(member).collect(), wakes)
    }

    fn push(members: &[Connection]) -> Option<PacedWakes> {
        push_to_all(members.iter(), members.len(), &Bytes::from_static(b"m"))
    }

    #[test]
    fn few_are_woken_at_once() {
        let (members, woken) = crowd(MOST_AT_ONCE);
        assert!(push(&members).is_none());
        assert_eq!(woken.count(), MOST_AT_ONCE);
    }

    #[test]
    fn very_many_have_the_frame_at_once_and_are_woken_in_steps() {
        let (members, woken) = crowd(MANY);
        let mut run = Box::pin(push(&members).unwrap().run());
        assert!(members.iter().all(|member| matches!(member.next(), OutboxItem::Frame(_))));
        let mut polls = 0;
        while run.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            polls += 1;
            assert_eq!(woken.count(), MANY.min(polls * STEP));
        }
        assert_eq!(polls, MANY.div_ceil(STEP));
    }

    #[test]
    fn none_is_woken_twice_for_frames_that_it_writes_together() {
        let (members, woken) = crowd(MANY);
        let first = push(&members).unwrap();
        assert!(push(&members).is_none(), "all are about to be woken");
        assert_eq!(woken.count(), 0);
        drop(first);
        assert_eq!(woken.count(), MANY, "also if the rest is dropped");
    }

    #[test]
    fn a_slow_one_among_very_many_is_closed_at_once() {
        let (members, woken) = crowd(MANY);
        let _unread: Vec<_> = (0..4).map(|_| push(&members)).collect();
        for member in &members[1..] {
            member.next();
        }
        members[0].register(&woken.waker());
        let before = woken.count();
        assert!(push(&members).is_none());
        assert_eq!((members[0].is_closing(), members[1].is_closing()), (true, false));
        assert_eq!(woken.count() - before, 1);
    }

    #[test]
    fn one_whose_outbox_fills_up_is_woken_before_its_turn() {
        let (members, woken) = crowd(MANY);
        let _later = [push(&members), push(&members)];
        assert_eq!(woken.count(), 0);
        assert!(push(&members).is_none());
        assert_eq!(woken.count(), MANY);
    }
}

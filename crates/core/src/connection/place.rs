//! The actions of a connection that run at once: each has a place, of which there are few.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::Connection;
use super::outbox::{Frame, Queued};

/// The place of a running action. Dropped, it is free again, however the action ended.
#[derive(Debug)]
pub struct ActionPlace {
    connection: Connection,
    is_taken: bool,
}

impl Connection {
    /// Takes a place for a running action, if fewer than `limit` are taken.
    pub fn begin_action(&self, limit: usize) -> Option<ActionPlace> {
        self.0.total.fetch_add(1, Relaxed);
        let free = |pending: u32| ((pending as usize) < limit).then_some(pending + 1);
        self.0.pending.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(ActionPlace { connection: self.clone(), is_taken: true })
    }

    /// How many of its actions run now.
    pub fn pending_actions(&self) -> u32 {
        self.0.pending.load(Acquire)
    }

    /// How many actions it ever asked for.
    pub fn total_actions(&self) -> u64 {
        self.0.total.load(Relaxed)
    }
}

impl ActionPlace {
    /// The connection that asked.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Queues the answer and gives the place back, in one step: a client that has the answer has the place, and a node
    /// that stops sees the answer before it sees that nothing runs.
    pub fn answer(mut self, frame: Frame) {
        let shared = &self.connection.0;
        self.is_taken = false;
        let queued = {
            let mut outbox = self.connection.outbox();
            let queued = outbox.push(frame, shared.limit);
            shared.pending.fetch_sub(1, AcqRel);
            queued
        };
        if queued == Queued::Overflow {
            self.connection.leave();
        }
        shared.wake.wake();
    }
}

impl Drop for ActionPlace {
    fn drop(&mut self) {
        if !self.is_taken {
            return;
        }
        self.connection.0.pending.fetch_sub(1, AcqRel);
        if self.connection.is_closing() {
            self.connection.0.wake.wake(); // a node that stops waits for the last of them
        }
    }
}

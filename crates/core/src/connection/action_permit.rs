//! Permits for the actions of a connection that run at once.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::Connection;
use super::outbox::{Frame, Queued};

/// The permit of a running action. Dropped, it is free again, however the action ended.
#[derive(Debug)]
pub struct ActionPermit {
    connection: Connection,
    is_acquired: bool,
}

impl Connection {
    /// Acquires a permit for an action, if fewer than `limit` run.
    pub fn try_acquire_action(&self, limit: usize) -> Option<ActionPermit> {
        self.0.total.fetch_add(1, Relaxed);
        let free = |pending: u32| ((pending as usize) < limit).then_some(pending + 1);
        self.0.pending.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(ActionPermit { connection: self.clone(), is_acquired: true })
    }

    /// How many of its actions run now.
    pub fn pending_actions(&self) -> u32 {
        self.0.pending.load(Acquire)
    }

    /// How many actions it ever called.
    pub fn total_actions(&self) -> u64 {
        self.0.total.load(Relaxed)
    }
}

impl ActionPermit {
    /// The calling connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Queues the answer and returns the permit, in one step: a client that has the answer has the permit too, and a node
    /// that stops sees the answer before it sees that nothing runs.
    pub fn answer(mut self, frame: Frame) {
        let shared = &self.connection.0;
        self.is_acquired = false;
        let queued = {
            let mut outbox = self.connection.outbox();
            let queued = outbox.push(frame, shared.limit);
            shared.pending.fetch_sub(1, AcqRel);
            queued
        };
        if queued == Queued::Overflow {
            self.connection.on_closing();
        }
        shared.wake.wake();
    }
}

impl Drop for ActionPermit {
    fn drop(&mut self) {
        if !self.is_acquired {
            return;
        }
        self.connection.0.pending.fetch_sub(1, AcqRel);
        if self.connection.is_closing() {
            self.connection.0.wake.wake(); // a node that stops waits for the last of them
        }
    }
}

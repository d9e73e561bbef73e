//! The session of a socket, which is looked up from time to time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::backend::SessionKey;

/// The session that the upgrade of a connection named.
#[derive(Debug)]
pub struct SocketSession {
    pub(crate) key: SessionKey,
    /// Its user at that time.
    pub(crate) user: Option<String>,
    /// When it is to be looked up again, Unix time in milliseconds by the backend's clock.
    due_at: AtomicU64,
    /// Whether the client sent a frame since the last look.
    is_used: AtomicBool,
    /// Whether an action of the socket itself has ended it.
    has_ended: AtomicBool,
}

impl SocketSession {
    pub(crate) fn new(key: SessionKey, user: Option<String>) -> Self {
        Self {
            key,
            user,
            due_at: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn mark_used(&self) {
        // Most frames find it set: a store would take the line of the cache from other threads.
        if !self.is_used.load(Relaxed) {
            self.is_used.store(true, Relaxed);
        }
    }

    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    pub(crate) fn take_used(&self) -> bool {
        self.is_used.swap(false, Relaxed)
    }

    pub(crate) fn mark_ended(&self) {
        self.has_ended.store(true, Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.due_at.load(Relaxed) <= now
    }

    pub(crate) fn due_at(&self) -> u64 {
        self.due_at.load(Relaxed)
    }

    pub(crate) fn set_due(&self, at: u64) {
        self.due_at.store(at, Relaxed);
    }

    /// Sets the time of the next look after one, unless another time was set since.
    pub(crate) fn move_due(&self, from: u64, to: u64) {
        let _ = self.due_at.compare_exchange(from, to, Relaxed, Relaxed); // the other one counts
    }
}

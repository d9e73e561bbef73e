//! The session of a socket, which is looked up from time to time.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::SeqCst};

use crate::backend::SessionKey;

/// The time that is set while a look is under way: no look is due at it, as by a clock.
const LOOKED_AT: u64 = 1;

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
    /// The actions of the socket itself that may be ending it.
    ending: AtomicU32,
    /// Whether one of them has ended it.
    has_ended: AtomicBool,
    /// Whether it waits for a look because it is said to have changed.
    is_changed: AtomicBool,
}

impl SocketSession {
    pub(crate) fn new(key: SessionKey, user: Option<String>) -> Self {
        Self {
            key,
            user,
            due_at: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            ending: AtomicU32::new(0),
            has_ended: AtomicBool::new(false),
            is_changed: AtomicBool::new(false),
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

    pub(crate) fn begin_ending(&self) {
        self.ending.fetch_add(1, SeqCst);
    }

    pub(crate) fn stop_ending(&self) {
        self.ending.fetch_sub(1, SeqCst);
    }

    /// Whether it is ended by an action of the socket, to which the reply comes before the socket is closed.
    pub(crate) fn is_ended_by_itself(&self) -> bool {
        self.ending.load(SeqCst) > 0 || self.has_ended()
    }

    /// Sets whether it waits for a look because it is said to have changed; returns whether that is new.
    pub(crate) fn set_changed(&self, is_changed: bool) -> bool {
        self.is_changed.swap(is_changed, AcqRel) != is_changed
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

    pub(crate) fn set_due(&self, at: u64) {
        self.due_at.store(at, SeqCst);
    }

    /// Begins a look, before the backend is read: a time that is set from here on is another one, also if it was set before.
    pub(crate) fn begin_look(&self) {
        self.due_at.store(LOOKED_AT, SeqCst);
    }

    /// Sets the time of the next look after one, unless a time was set since that began.
    pub(crate) fn end_look(&self, next: u64) {
        let _ = self.due_at.compare_exchange(LOOKED_AT, next, SeqCst, Relaxed); // the other one counts
    }
}

//! The state that a connection's stream, its service and its drain share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The activity of one HTTP connection. Its parts run in one task, but for bodies, which other tasks may read.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// The bodies that have not ended: while there is one, the client may still be sending.
    sending: AtomicU32,
    /// The requests whose responses were not sent to their end.
    open_requests: AtomicU32,
    /// Counts reads, and the ends of requests and of writes that had to wait.
    events: AtomicU32,
    /// Whether bytes came since a request last began or ended: the first ones of the next.
    has_unread_head: AtomicBool,
    /// Whether a write waits for the client to read.
    is_write_pending: AtomicBool,
    /// Whether a read that finds nothing asks the kernel once more.
    is_probing: AtomicBool,
}

impl Activity {
    pub(crate) fn begin_body(&self) {
        self.sending.fetch_add(1, Relaxed);
    }

    pub(crate) fn end_body(&self) {
        self.sending.fetch_sub(1, Relaxed);
    }

    /// Whether the client may still be sending a body.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.load(Relaxed) > 0
    }

    pub(crate) fn begin_request(&self) {
        self.open_requests.fetch_add(1, Relaxed);
        self.has_unread_head.store(false, Relaxed);
    }

    pub(crate) fn end_request(&self) {
        self.open_requests.fetch_sub(1, Relaxed);
        self.has_unread_head.store(false, Relaxed);
        self.count_event();
    }

    /// Notes that bytes came.
    pub(super) fn note_read(&self) {
        self.has_unread_head.store(true, Relaxed);
        self.count_event();
    }

    pub(super) fn begin_pending_write(&self) {
        self.is_write_pending.store(true, Relaxed);
    }

    pub(super) fn end_pending_write(&self) {
        self.is_write_pending.store(false, Relaxed);
        self.count_event();
    }

    /// Only the connection's task counts, but for the end of a response that another task drops.
    fn count_event(&self) {
        self.events.store(self.events.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A number that changes whenever bytes come, a request ends, or its client reads on.
    pub(super) fn events(&self) -> u32 {
        self.events.load(Relaxed)
    }

    /// Whether a request came whose response was not sent to its end.
    pub(super) fn has_request(&self) -> bool {
        self.open_requests.load(Relaxed) > 0
    }

    /// Whether no request runs, none has come in part, and the last response is in the kernel: it counts as sent a little
    /// earlier.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_request() && !self.has_unread_head.load(Relaxed) && !self.is_write_pending.load(Relaxed)
    }

    pub(super) fn set_probing(&self, is_probing: bool) {
        self.is_probing.store(is_probing, Relaxed);
    }

    pub(super) fn is_probing(&self) -> bool {
        self.is_probing.load(Relaxed)
    }
}

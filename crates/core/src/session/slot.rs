//! The session of one call, which its guards, its function and the calls that it makes share.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::backend::{SessionKey, StoredSession, UserKey};

/// The session of an outermost call. It is untyped: an application has one type of sessions, so each value is of it.
#[derive(Default)]
pub(super) struct CallSession {
    /// Set once the session was read.
    pub(super) loaded: OnceCell<()>,
    /// Locked while the call writes: two writes of one call see each other.
    pub(super) writing: tokio::sync::Mutex<()>,
    state: Mutex<CallState>,
}

#[derive(Default)]
pub(super) struct CallState {
    /// The session that the request names, or that the call has got since; it may be gone.
    pub(super) key: Option<SessionKey>,
    /// The session, if there is one that can be read.
    pub(super) current: Option<LoadedSession>,
    /// Whether the cookie that the call may set outlasts the browser.
    pub(super) is_remembered: Option<bool>,
    /// Whether the call has set the cookie.
    pub(super) has_set_cookie: bool,
    /// The session that the call had has ended elsewhere, so that no write but a sign-in makes another one.
    pub(super) was_ended: bool,
}

/// A session as the call knows it.
#[derive(Clone)]
pub(super) struct LoadedSession {
    pub(super) key: SessionKey,
    pub(super) version: u64,
    pub(super) user: Option<UserKey>,
    pub(super) is_frozen: bool,
    pub(super) bytes: Bytes,
    pub(super) value: Arc<dyn Any + Send + Sync>,
}

impl LoadedSession {
    pub(super) fn new(key: SessionKey, stored: StoredSession, value: Arc<dyn Any + Send + Sync>) -> Self {
        let StoredSession { value: bytes, version, user, is_frozen, .. } = stored;
        Self { key, version, user, is_frozen, bytes, value }
    }
}

impl CallSession {
    pub(super) fn state(&self) -> MutexGuard<'_, CallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the call without its session, which is gone.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        (state.current, state.was_ended) = (None, true);
    }

    pub(super) fn current(&self) -> Option<LoadedSession> {
        self.state().current.clone()
    }
}

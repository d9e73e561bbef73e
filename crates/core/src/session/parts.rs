//! The part of sessions that a node has: their store, their cookie, their bounds.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderMap;
use tracing::warn;

use super::cookie::SessionCookie;
use super::data::SessionType;
use super::ended::EndedSessions;
use super::looks::LookRequests;
use super::metrics;
use super::turns::UpdateTurns;
use crate::address_rate::{AddressBuckets, Rate};
use crate::backend::{BackendError, Clock, SessionKey, SessionStore, SessionUse, StoredSession};
use crate::config::{Config, SessionSettings};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::tags::Tags;

/// Sessions that are ended again by one call of the store.
const ENDED_AT_ONCE: usize = 200;

/// Milliseconds between two lines in the log about values that do not decode.
const UNDECODABLE_PAUSE: u64 = 60_000;

/// The sessions of a node.
pub(crate) struct SessionParts {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) clock: Arc<dyn Clock>,
    /// By these the sockets of a session are found.
    pub(super) tags: Tags,
    pub(super) settings: SessionSettings,
    pub(super) cookie: SessionCookie,
    /// `None` if the application has none.
    pub(super) session_type: Option<SessionType>,
    pub(crate) looks: LookRequests,
    ended: EndedSessions,
    new_sessions: AddressBuckets,
    pub(super) turns: UpdateTurns,
    /// When a value that does not decode was logged last.
    logged_at: AtomicU64,
}

impl SessionParts {
    pub(crate) fn new(
        (store, clock, tags): (Arc<dyn SessionStore>, Arc<dyn Clock>, Tags),
        session_type: Option<SessionType>,
        config: &Config,
        (cluster, is_secure): (&str, bool),
    ) -> Self {
        metrics::describe();
        let settings = config.session.clone();
        let rate = Rate { per_second: settings.new_per_second, burst: settings.new_burst };
        Self {
            store,
            clock,
            tags,
            cookie: SessionCookie::new(cluster, is_secure, settings.same_site, settings.bearer),
            settings,
            session_type,
            looks: LookRequests::default(),
            ended: EndedSessions::default(),
            new_sessions: AddressBuckets::new(rate, config.limits.clone()),
            turns: UpdateTurns::default(),
            logged_at: AtomicU64::new(0),
        }
    }

    /// Reads a session, which is a use of it.
    pub(super) async fn read(&self, key: SessionKey) -> Result<Option<StoredSession>, ActionError> {
        let using = SessionUse { idle: self.settings.idle, step: self.settings.idle_step() };
        Ok(self.store.read(key, Some(using)).await?)
    }

    /// Counts a new id of a client at this address.
    ///
    /// # Errors
    ///
    /// `rate_limited` if the address has had too many.
    pub(super) fn count_new(&self, address: Option<SocketAddr>) -> Result<(), ActionError> {
        let Some(address) = address else { return Ok(()) };
        if self.new_sessions.try_take(address.ip()) {
            return Ok(());
        }
        bound_reached("session.new_per_second");
        metrics::record_refusal("too_many");
        let error = ActionError::of(ErrorKind::RateLimited, "too many new sessions from this address");
        Err(error.with_retry_after(Duration::from_secs(1)))
    }

    /// Counts sessions that were ended, and remembers them.
    pub(super) fn record_ended(&self, ended: &[SessionKey]) {
        metrics::record_ended(ended.len());
        self.remember_end(ended);
    }

    /// Remembers sessions that ended, or may have ended, or have another id: of what older data has of them nothing may go on.
    pub(super) fn remember_end(&self, keys: &[SessionKey]) {
        self.ended.add(keys, self.clock.now_ms());
    }

    /// Ends the sessions again that this node has ended lately and the backend has: it came back with older data.
    ///
    /// # Errors
    ///
    /// If the backend does not answer: then it is to be repeated.
    pub(crate) async fn end_again(&self) -> Result<(), BackendError> {
        let mut count = 0;
        for some in self.ended.all(self.clock.now_ms()).chunks(ENDED_AT_ONCE) {
            let ended = self.store.end_again(some).await?;
            metrics::record_ended_again(ended.len());
            count += ended.len();
            self.close_ended(ended, None);
        }
        if count > 0 {
            warn!(count, "sessions that had ended were there again, and were ended again: the backend had lost data");
        }
        Ok(())
    }

    /// Counts a value that does not decode, and logs one a minute.
    pub(super) fn report_undecodable(&self, key: SessionKey) {
        metrics::record_undecodable();
        let (now, logged_at) = (self.clock.now_ms(), self.logged_at.load(Relaxed));
        let is_due = logged_at == 0 || now.saturating_sub(logged_at) >= UNDECODABLE_PAUSE;
        if is_due && self.logged_at.compare_exchange(logged_at, now, Relaxed, Relaxed).is_ok() {
            warn!(session = ?key, "the value of a session does not decode, so it counts as none; not logged again within a minute");
        }
    }

    /// The session that the upgrade of a socket names, and its user.
    ///
    /// # Errors
    ///
    /// `unauthenticated` if it was renewed: its client has a new id by now, or soon. `unavailable` if the backend does not
    /// answer.
    pub(crate) async fn of_upgrade(
        &self,
        sent: Option<SessionKey>,
    ) -> Result<Option<(SessionKey, Option<String>)>, ActionError> {
        let Some((key, session_type)) = sent.zip(self.session_type) else { return Ok(None) };
        let Some(stored) = self.read(key).await? else { return Ok(None) };
        if stored.is_frozen {
            return Err(session_ended());
        }
        let user = (session_type.user_of)(&stored.value);
        if user.is_none() {
            self.report_undecodable(key);
        }
        Ok(user.map(|user| (key, user)))
    }

    /// The session that headers name; a cookie only if it counts for the page that sent it.
    pub(crate) fn sent(&self, headers: &HeaderMap, counts_cookie: bool) -> Option<SessionKey> {
        self.session_type?;
        self.cookie.sent(headers, counts_cookie)
    }
}

pub(super) fn no_session() -> ActionError {
    ActionError::unauthenticated("there is no session: sign in first")
}

pub(super) fn session_ended() -> ActionError {
    metrics::record_refusal("ended");
    let message = "the session has ended: sign in again";
    ActionError::new(ErrorKind::Unauthenticated, "session_ended", message)
}

impl fmt::Debug for SessionParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionParts({:?})", self.session_type.map(|session_type| session_type.name))
    }
}

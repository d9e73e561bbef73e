//! The sockets of sessions. They are closed on all nodes when their session ends or gets a new id, and their sessions are read
//! again where that may have been missed.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use super::parts::{SessionParts, session_ended};
use super::slot::CallSession;
use crate::backend::{SessionKey, SessionUse};
use crate::connection::Connection;
use crate::context::Context;
use crate::error::{ActionError, Chain};
use crate::protocol::CloseReason;

/// The longest time from one look at the session of a socket to the next.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// Sessions that are read at once.
const AT_ONCE: usize = 50;

/// The pause after each such batch: 1,000 sessions a second at most.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where orders to close may have been missed: 5,000 a second.
const PAUSE_AFTER_GAP: Duration = Duration::from_millis(10);

impl SessionParts {
    /// Closes the sockets of sessions that have ended. A socket of the call that ended them gets its reply first.
    ///
    /// # Errors
    ///
    /// `unavailable` if it is unknown whether other nodes close theirs.
    pub(super) async fn close_ended(
        &self,
        ended: impl IntoIterator<Item = SessionKey>,
        call: Option<&Context>,
    ) -> Result<(), ActionError> {
        let own = call.and_then(|call| call.outermost().connection());
        let close = |key: SessionKey| async move {
            let own = own.filter(|own| own.session().is_some_and(|session| session.key == key));
            if let Some(session) = own.and_then(Connection::session) {
                session.mark_ended();
            }
            self.tags.close_session(&key.to_hex(), CloseReason::NotAllowed, own.map(Connection::id)).await
        };
        // All orders are sent, whatever becomes of the first.
        join_all(ended.into_iter().map(close)).await.into_iter().collect()
    }

    /// Closes the sockets of a user, whose clients come back with the session that they have, if any.
    ///
    /// # Errors
    ///
    /// `unavailable` if it is unknown whether other nodes close theirs.
    pub(super) async fn reconnect_user(&self, user: &str) -> Result<(), ActionError> {
        self.tags.close_user(user, CloseReason::SessionRenewed).await
    }

    /// Closes the sockets of a session that has a new id, whose clients come back with that, and those of sessions that were
    /// ended for it. The write is done, so a failure is not the caller's: nodes that missed the order look again.
    pub(super) async fn close_replaced(&self, old: Option<SessionKey>, ended: Vec<SessionKey>) {
        let closing = async {
            if let Some(old) = old {
                self.tags.close_session(&old.to_hex(), CloseReason::SessionRenewed, None).await?;
            }
            self.close_ended(ended, None).await
        };
        if let Err(error) = closing.await {
            warn!(cause = %Chain(&error), "other nodes may not have closed the sockets of a session that was replaced");
        }
    }

    /// Looks the session of a socket up, and closes the socket for this reason if that is gone. Returns whether the backend
    /// answered.
    async fn look_at(&self, connection: &Connection, gone: CloseReason) -> bool {
        let Some(session) = connection.session() else { return true };
        let (is_used, due_at) = (session.take_used(), session.due_at());
        let using = SessionUse { idle: self.settings.idle, step: self.settings.idle_step() };
        match self.store.read(session.key, is_used.then_some(using)).await {
            Ok(Some(stored)) if stored.is_frozen => connection.close(CloseReason::SessionRenewed),
            Ok(Some(stored)) => {
                let next = stored.expires_in.min(LOOK.as_millis() as u64);
                session.move_due(due_at, self.clock.now_ms().saturating_add(next));
            }
            Ok(None) => connection.close(gone),
            Err(_) => {
                if is_used {
                    session.mark_used();
                }
                return false;
            }
        }
        true
    }
}

impl SessionParts {
    /// Looks the sessions of sockets up that are due, and those whose sockets were used, until the backend does not answer or
    /// there is a gap. Returns whether all were looked up.
    pub(crate) async fn look_at_sockets(
        &self,
        connections: Vec<Connection>,
        is_after_gap: bool,
        has_gap: impl Fn() -> bool,
    ) -> bool {
        let now = self.clock.now_ms();
        let is_due = |connection: &Connection| match connection.session().filter(|_| !connection.is_closing()) {
            // The reply to the action that ended it comes first.
            Some(session) if session.has_ended() => {
                if connection.pending_actions() == 0 {
                    connection.close(CloseReason::NotAllowed);
                }
                false
            }
            Some(session) => session.is_due(now) || session.is_used(),
            None => false,
        };
        let due: Vec<Connection> = connections.into_iter().filter(is_due).collect();
        // After a gap the backend may have lost all sessions: their clients are to come back, as guests.
        let (gone, pause) = if is_after_gap {
            (CloseReason::SessionRenewed, PAUSE_AFTER_GAP)
        } else {
            (CloseReason::NotAllowed, PAUSE)
        };
        for batch in due.chunks(AT_ONCE) {
            let looks = join_all(batch.iter().map(|connection| self.look_at(connection, gone))).await;
            if has_gap() || looks.contains(&false) {
                return false;
            }
            sleep(pause).await;
        }
        true
    }

    /// Checks the session of an upgrade once more, after its connection has the tags by which an end closes it: so an end is
    /// seen here, or received.
    ///
    /// # Errors
    ///
    /// `unauthenticated` if it has ended, or is another user's; `unavailable` if the backend does not answer.
    pub(crate) async fn confirm(&self, connection: &Connection) -> Result<(), ActionError> {
        let Some(session) = connection.session() else { return Ok(()) };
        match self.of_upgrade(Some(session.key)).await? {
            Some((_, user)) if user == session.user => Ok(()),
            _ => Err(session_ended()),
        }
    }
}

/// Forgets the session of a call that is among the ended ones.
pub(super) fn forget(call: &Context, ended: &[SessionKey]) {
    let slot = call.slot::<CallSession>();
    if slot.current().is_some_and(|current| ended.contains(&current.key)) {
        slot.lose();
    }
}

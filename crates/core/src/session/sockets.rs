//! The sockets of sessions. A node closes its own when it ends their session or gives that a new id. Other nodes learn from the
//! store that something changed, and read the session again, as they do where they may have missed that.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::looks::LookRequests;
use super::parts::{SessionParts, session_ended};
use super::slot::CallSession;
use crate::backend::{SessionKey, SessionUse};
use crate::connection::{Connection, SocketSession};
use crate::context::Context;
use crate::error::ActionError;
use crate::protocol::CloseReason;

/// The longest time from one look at the session of a socket to the next.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// Sessions that are read at once.
const AT_ONCE: usize = 50;

/// The pause after each such batch: 1,000 sessions a second at most.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where ends may have been missed, or were said: 5,000 a second.
const PAUSE_AFTER_GAP: Duration = Duration::from_millis(10);

/// Kept while an action of a socket may end the session of that socket: its reply comes before the socket is closed, also if the
/// other way by which this node learns of the end is the faster one.
pub(super) struct EndingSession<'a> {
    looks: &'a LookRequests,
    connection: &'a Connection,
    session: &'a SocketSession,
}

impl Drop for EndingSession<'_> {
    fn drop(&mut self) {
        self.session.stop_ending();
        if !self.session.has_ended() {
            // Perhaps it was ended all the same, by an action that does not know it, and the look was left to that.
            self.looks.add_changed(std::slice::from_ref(self.connection));
        }
    }
}

impl SessionParts {
    /// Begins an action by which the session of its own socket may end.
    pub(super) fn begin_end<'a>(&'a self, call: Option<&'a Context>) -> Option<EndingSession<'a>> {
        let connection = call?.outermost().connection()?;
        let session = connection.session()?;
        session.begin_ending();
        Some(EndingSession { looks: &self.looks, connection, session })
    }

    /// Closes the sockets that this node has of sessions that have ended. A socket of the call that ended them gets its reply
    /// first. Other nodes learn of it from the store.
    pub(super) fn close_ended(&self, ended: impl IntoIterator<Item = SessionKey>, call: Option<&Context>) {
        let own = call.and_then(|call| call.outermost().connection());
        for key in ended {
            let own = own.filter(|own| own.session().is_some_and(|session| session.key == key));
            if let Some(session) = own.and_then(Connection::session) {
                session.mark_ended();
            }
            self.tags.close_session(key.tag(), CloseReason::NotAllowed, own.map(Connection::id));
        }
    }

    /// Closes the sockets that this node has of a session that has a new id, whose clients come back with that, and those of
    /// sessions that were ended for it.
    pub(super) fn close_replaced(&self, old: Option<SessionKey>, ended: Vec<SessionKey>) {
        if let Some(old) = old {
            self.tags.close_session(old.tag(), CloseReason::SessionRenewed, None);
        }
        self.close_ended(ended, None);
    }

    /// Looks the session of a socket up, and closes the socket for this reason if that is gone. Returns whether the backend
    /// answered.
    async fn look_at(&self, connection: &Connection, gone: CloseReason) -> bool {
        let Some(session) = connection.session() else { return true };
        let is_used = session.take_used();
        session.begin_look();
        let using = SessionUse { idle: self.settings.idle, step: self.settings.idle_step() };
        match self.store.read(session.key, is_used.then_some(using)).await {
            Ok(Some(stored)) if stored.is_frozen => connection.close(CloseReason::SessionRenewed),
            Ok(Some(stored)) => {
                let next = stored.expires_in.min(LOOK.as_millis() as u64);
                session.end_look(self.clock.now_ms().saturating_add(next));
            }
            // The reply to that action comes first.
            Ok(None) if session.is_ended_by_itself() => {}
            Ok(None) => connection.close(gone),
            Err(_) => {
                if is_used {
                    session.mark_used();
                }
                session.set_due(0);
                return false;
            }
        }
        true
    }
}

impl SessionParts {
    /// Looks the sessions of sockets up that are due, and those whose sockets were used, until the backend does not answer or
    /// there is a gap. Returns whether all were looked up.
    pub(crate) async fn look_at_sockets(&self, connections: Vec<Connection>, is_after_gap: bool) -> bool {
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
            if self.looks.has_gap() || looks.contains(&false) {
                return false;
            }
            sleep(pause).await;
        }
        true
    }

    /// Looks the sessions of sockets up that are said to have changed, until none is left.
    pub(crate) async fn look_at_changed(&self) {
        loop {
            let batch = self.looks.take_changed(AT_ONCE);
            if batch.is_empty() {
                return;
            }
            let look = async |connection: &Connection| {
                if !self.look_at(connection, CloseReason::NotAllowed).await {
                    self.looks.add_gap(std::slice::from_ref(connection));
                }
            };
            join_all(batch.iter().map(look)).await;
            sleep(PAUSE_AFTER_GAP).await;
        }
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

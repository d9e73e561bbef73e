//! The tags of sessions and users, which no application can name.

use futures_util::future::try_join_all;

use super::Engine;
use super::registration::Registration;
use crate::connection::Connection;
use crate::error::ActionError;
use crate::id::ConnectionId;
use crate::protocol::CloseReason;

impl Engine {
    /// Closes the connections of a session on every node: those of this one at once, but for `except`, whose own action may
    /// have ended it. The session is named as in [`Registration::set_session`]; the reason is
    /// [`CloseReason::NotAllowed`] if it has ended, [`CloseReason::SessionRenewed`] if it has another id.
    ///
    /// # Errors
    ///
    /// `unavailable` if it is unknown whether other nodes receive it.
    pub async fn close_session(
        &self,
        session: &str,
        reason: CloseReason,
        except: Option<&ConnectionId>,
    ) -> Result<(), ActionError> {
        self.parts().tags.close_session(session, reason, except).await
    }

    /// Has an observer called, with the session and its connections on this node, when the order to close them may have been
    /// missed. The task that delivers messages calls it, so it must not wait. Only the first observer counts.
    pub fn observe_session_gaps(&self, observer: impl Fn(&str, &[Connection]) + Send + Sync + 'static) {
        self.parts().tags.observe_session_gaps(Box::new(observer));
    }
}

impl Registration {
    /// Gives the connection the tags that connect hooks want for it. Completes when all of them stand.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::tag`].
    pub async fn set_tags(&self, tags: &[String]) -> Result<(), ActionError> {
        try_join_all(tags.iter().map(|tag| self.connection().tag(tag))).await.map(drop)
    }

    /// Makes the connection one of a session, named by the hash of its id, and of its user, in place of earlier ones. From
    /// when this returns on, [`Engine::close_session`] closes it, and [`user`](crate::Connections::user) finds it.
    ///
    /// # Errors
    ///
    /// `conflict` if the connection has ended, `unavailable` if the backend does not answer: then a session that ends may
    /// leave it open, so it must not be served.
    pub async fn set_session(&self, session: &str, user: Option<&str>) -> Result<(), ActionError> {
        self.engine().parts().tags.set_session(self.connection(), session, user).await
    }
}

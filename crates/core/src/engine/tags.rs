//! The tags of sessions and users, which no application can name.

use futures_util::future::try_join_all;

use super::Engine;
use super::registration::Registration;
use crate::backend::SessionKey;
use crate::connection::Connection;
use crate::error::ActionError;
use crate::tags::SessionSign;

impl Engine {
    /// Has an observer called with the connections of a session on this node when that is to be read again. The task that
    /// delivers messages calls it, so it must not wait. Only the first observer counts.
    pub fn observe_sessions(&self, observer: impl Fn(SessionSign, &[Connection]) + Send + Sync + 'static) {
        self.parts().tags.observe_sessions(Box::new(observer));
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

    /// Makes the connection one of a session and of its user, in place of earlier ones. From when this returns on, a change of
    /// the session is observed ([`Engine::observe_sessions`]), and [`user`](crate::Connections::user) finds it.
    ///
    /// # Errors
    ///
    /// `conflict` if the connection has ended, `unavailable` if the backend does not answer: then a session that ends may
    /// leave it open, so it must not be served.
    pub async fn set_session(&self, session: SessionKey, user: Option<&str>) -> Result<(), ActionError> {
        self.engine().parts().tags.set_session(self.connection(), session.tag(), user).await
    }
}

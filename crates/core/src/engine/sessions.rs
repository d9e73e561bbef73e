//! Looks the sessions of sockets up: those that are said to have changed, those that are due, and all of them after a gap.

use std::time::Duration;

use tokio::time::sleep;

use super::Engine;
use super::registration::Registration;
use crate::connection::Connection;
use crate::error::ActionError;
use crate::tags::SessionSign;

/// The time between two looks.
const PAUSE: Duration = Duration::from_secs(30);

/// The time to the next one if the backend did not answer, or a gap came meanwhile.
const RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Closes sockets whose session has ended, or has a new id, without this node having done that: others say so, it expired,
    /// or it was missed.
    pub(super) fn spawn_session_looks(&self) {
        if !self.has_sessions() {
            return;
        }
        let sessions = self.node().session_parts().clone();
        self.parts().clock.on_advance(sessions.looks.wake());
        self.observe_sessions({
            let sessions = sessions.clone();
            move |sign, connections: &[Connection]| match sign {
                SessionSign::Changed => sessions.looks.add_changed(connections),
                SessionSign::Gap => sessions.looks.add_gap(connections),
            }
        });
        let (engine, of_changed) = (self.clone(), sessions.clone());
        self.shutdown().spawn_own(async move {
            let looking = async {
                loop {
                    of_changed.looks.some_changed().await;
                    of_changed.look_at_changed().await;
                }
            };
            tokio::select! {
                () = engine.shutdown().closed() => {}
                () = looking => {}
            }
        });
        let engine = self.clone();
        self.shutdown().spawn_own(async move {
            // A backend that did not answer may be back without its data, and the gap may come later than its answers.
            let (mut is_unanswered, mut pause) = (false, PAUSE);
            loop {
                tokio::select! {
                    () = engine.shutdown().closed() => return,
                    () = sleep(pause) => {}
                    () = sessions.looks.wake().notified() => {}
                }
                let is_after_gap = sessions.looks.take_gap() || is_unanswered;
                let is_done = sessions.look_at_sockets(engine.parts().connections.all(), is_after_gap).await;
                (is_unanswered, pause) = if is_done { (false, PAUSE) } else { (true, RETRY) };
            }
        });
    }
}

impl Registration {
    /// Gives the connection the tags of its session, and reads that again. From here on its end closes the connection.
    ///
    /// # Errors
    ///
    /// `unauthenticated` if the session has ended meanwhile, `unavailable` if the backend does not answer.
    pub async fn confirm_session(&self) -> Result<(), ActionError> {
        let Some(session) = self.connection().session() else { return Ok(()) };
        self.set_session(session.key, session.user.as_deref()).await?;
        self.engine().node().session_parts().confirm(self.connection()).await
    }
}

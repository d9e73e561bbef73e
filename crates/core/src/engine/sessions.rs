//! Looks the sessions of sockets up: those that are due, and all of them after a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Engine;
use super::registration::Registration;
use crate::connection::Connection;
use crate::error::ActionError;

/// The time between two looks.
const PAUSE: Duration = Duration::from_secs(30);

/// The time to the next one if the backend did not answer, or a gap came meanwhile.
const RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Closes sockets whose session has ended without an order to close them: it expired, or the order was missed.
    pub(super) fn spawn_session_looks(&self) {
        if !self.has_sessions() {
            return;
        }
        let (wake, had_gap) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        self.parts().clock.on_advance(&wake);
        self.observe_session_gaps({
            let (wake, had_gap) = (wake.clone(), had_gap.clone());
            move |_, connections: &[Connection]| {
                connections.iter().filter_map(Connection::session).for_each(|session| session.set_due(0));
                had_gap.store(true, Release);
                wake.notify_one();
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
                    () = wake.notified() => {}
                }
                let is_after_gap = had_gap.swap(false, AcqRel) || is_unanswered;
                let connections = engine.parts().connections.all();
                let sessions = engine.node().session_parts();
                let is_done = sessions.look_at_sockets(connections, is_after_gap, || had_gap.load(Acquire)).await;
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
        self.set_session(&session.key.to_hex(), session.user.as_deref()).await?;
        self.engine().node().session_parts().confirm(self.connection()).await
    }
}

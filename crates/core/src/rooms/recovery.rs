//! Signs that the backend lost something, and the parts of recovery that concern whole rooms.

use std::sync::PoisonError;

use tracing::warn;

use super::Rooms;
use crate::backend::BackendError;
use crate::connection::Frame;
use crate::lease_state::RecoveryRequest;
use crate::protocol::{self, AwayEvent};

impl Rooms {
    /// Whether there are last messages to publish, or joins and leaves to announce.
    pub(crate) fn need_recovery(&self) -> bool {
        self.has_waiting_changes() || !self.pending_destroys().is_empty()
    }

    /// Records that messages were missed: rooms may have been destroyed.
    pub(crate) fn record_missed_messages(&self) {
        self.0.parts.lease.request_recovery(RecoveryRequest::CHECK_ROOMS);
    }

    /// The number of memberships on this node.
    pub(crate) fn count_held(&self) -> u64 {
        let rooms = self.0.local.read().unwrap_or_else(PoisonError::into_inner);
        rooms.values().map(|local| local.members().len() as u64).sum()
    }

    /// A number that is the same at two moments if no join or leave was in progress at or between them; `None` if one is.
    pub(crate) fn quiet(&self) -> Option<u64> {
        self.0.moves.quiet()
    }

    /// Removes all members that the node does not hold. `all_listed`: whether everything that it holds is listed under its
    /// present generation.
    pub(crate) async fn remove_all_unheld(&self, all_listed: bool) -> Result<(), BackendError> {
        let identity = &self.0.parts.identity;
        let mut generations = identity.generations.earlier();
        generations.push(identity.generation());
        self.remove_unheld(&generations, all_listed).await
    }

    /// Sends every socket that is in rooms the notice that their messages do not arrive for now.
    pub(crate) fn send_away(&self) {
        let frame = protocol::encode(&AwayEvent::NOTICE);
        for connection in self.0.parts.registry.all() {
            if connection.joined_rooms().names().next().is_some() {
                connection.push(Frame::Text(frame.clone()));
            }
        }
    }

    /// Creates the rooms of `rooms.start` again.
    pub(crate) async fn restore_start_rooms(&self) -> Result<(), BackendError> {
        for room in &self.config().rooms.start {
            match self.store().create(room, self.config().rooms.max_rooms).await {
                Ok(_) => {}
                Err(error @ (BackendError::WrongKind { .. } | BackendError::Locked { .. })) => {
                    warn!(%error, room, "a room cannot be recovered");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

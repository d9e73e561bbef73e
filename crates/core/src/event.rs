//! What happens on a node, for those who watch: one enum instead of scattered callbacks.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Missed, NodeRecord};
use crate::connection::{CloseReason, Connection};
use crate::context::Origin;
use crate::node::Generation;

pub use crate::metrics::Ending;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The node serves.
    Ready,
    /// The node began to stop.
    Stopping,
    /// A socket was welcomed.
    Connected(Connection),
    /// A socket ended, after its leaves.
    Disconnected(Connection, CloseReason),
    /// A room came to be.
    RoomAdded(Arc<str>),
    /// A room ended.
    RoomDestroyed(Arc<str>),
    /// A connection joined a room.
    Joined(Arc<str>, Connection),
    /// A connection left a room.
    Left(Arc<str>, Connection),
    /// A call of an action ended.
    #[non_exhaustive]
    ActionEnded {
        /// The action's name.
        action: &'static str,
        /// Its version.
        version: u32,
        /// Who called.
        transport: Origin,
        /// How it ended.
        outcome: Ending,
        /// How long it took.
        took: Duration,
    },
    /// Messages of other nodes may have been missed, in rooms, under topics, or on their way to this node.
    Missed(Missed),
    /// Messages of a room may have been missed: told for each room with members here.
    Gap(Arc<str>),
    /// A node came.
    NodeJoined(NodeRecord),
    /// A node left, or was found dead and cleaned up.
    NodeLeft(NodeRecord),
    /// The backend came back empty: what only it held is lost. Rooms and members are listed again.
    BackendLost,
    /// This node was found dead while it was not, or the backend lost everything: it has a new name.
    Renamed(Generation),
}

/// Someone who watches. Called in place, so it must be quick: hand the event to a bounded queue for anything slow.
pub trait Observer: Send + Sync + 'static {
    /// Hears of an event. A panic is caught and counted.
    fn observe(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

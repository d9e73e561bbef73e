//! Events of a node, for observers: one enum instead of scattered callbacks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{GapCause, NodeRecord};
use crate::connection::Connection;
use crate::error::report_panic;
use crate::id::Generation;
use crate::job::AttemptOutcome;
use crate::origin::Origin;
use crate::protocol::CloseReason;

pub use crate::metrics::CallEnd;

/// An event of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The node serves.
    Ready,
    /// The node started to stop.
    Stopping,
    /// A socket was welcomed.
    Connected(Connection),
    /// A socket closed, after it left its rooms.
    Disconnected(Connection, CloseReason),
    /// A room was created.
    RoomCreated(Arc<str>),
    /// A room was destroyed.
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
        /// The transport of the call.
        transport: Origin,
        /// How it ended.
        outcome: CallEnd,
        /// How long it took.
        took: Duration,
    },
    /// An enqueue on this node stored a job. Not for one that is there already, nor for ticks, retries, follow-on jobs, and completions
    /// of batches.
    #[non_exhaustive]
    JobEnqueued {
        /// The task's name.
        task: &'static str,
        /// The job's id.
        id: Arc<str>,
        /// Its queue.
        queue: Arc<str>,
    },
    /// An attempt of a job ended.
    #[non_exhaustive]
    AttemptEnded {
        /// The task's name.
        task: &'static str,
        /// The job's id.
        id: Arc<str>,
        /// How it ended.
        outcome: AttemptOutcome,
        /// How long it took.
        took: Duration,
    },
    /// Messages to this node, or of topics, may have been missed. If the bus was away, a `RoomGap` of each room follows.
    BusGap(GapCause),
    /// Messages of a room with members here may have been missed, or its list was not whole when members read it.
    RoomGap(Arc<str>),
    /// A node joined the cluster.
    NodeJoined(NodeRecord),
    /// A node left the cluster, or was reaped.
    NodeLeft(NodeRecord),
    /// The backend came back empty, or with data from before this node registered: what only it had is lost. Rooms and members are listed again.
    BackendLost,
    /// This node was reaped while it ran: it has a new generation.
    Renamed(Generation),
}

/// An observer of events. Called in place, so it must be quick: send the event to a bounded queue for anything slow.
pub trait Observer: Send + Sync + 'static {
    /// Receives an event. A panic is caught and counted.
    fn observe(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

/// The observers of one node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Observers(Arc<[Arc<dyn Observer>]>);

impl Observers {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self(observers.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notifies all of them. A panic of one is counted and logged, and the others are notified all the same.
    pub(crate) fn notify(&self, event: &Event) {
        for observer in &*self.0 {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| observer.observe(event))) {
                report_panic(&*panic);
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}

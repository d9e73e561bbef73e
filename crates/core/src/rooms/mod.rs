//! Rooms: their names, and their members on this node.
//!
//! One order for all members: a message is published, and every node, the sender's too, delivers messages in the order in
//! which it receives them. A connection is in the delivery set from the step that queues its `OK` to `roomAdd`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::backend::{
    Bus, Clock, CreateOutcome, Interop, Members, MembersCursor, Publication, RoomStore, Subscription,
};
use crate::config::Config;
use crate::connection::Connection;
use crate::connections::ConnectionRegistry;
use crate::error::{ActionError, Detail, ErrorKind};
use crate::event::{Event, Observers};
use crate::id::{ConnectionId, Incarnation, NodeIdentity};
use crate::lease_state::LeaseState;
use crate::metrics::{NodeMetrics, bound_reached};
use crate::protocol::RoomView;
use crate::shutdown::Shutdown;

mod callbacks;
mod deliver;
mod destroy;
mod gap;
mod join;
mod leave;
mod members;
mod moves;
mod pending_removal;
mod presence;
mod publish;
mod recovery;
mod relist;
mod shared_view;
mod waiting_changes;

use gap::RoomGaps;
use members::LocalMembers;
use moves::MembershipMoves;
use presence::PresenceLog;
use shared_view::SharedViews;

pub use callbacks::{Delivery, LeaveCause};
pub(crate) use callbacks::{Leaver, RoomCallbacks, RoomPoint};

/// The rooms of the cluster. Cheap to clone.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::{Engine, ErrorKind, NodeSetup};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// let rooms = engine.node().rooms();
/// rooms.create("lobby").await?;
/// rooms.say("lobby", "hello").await?; // to its members on every node, of which there are none yet
/// assert_eq!(rooms.status("lobby").await?.members.count, 0);
/// assert_eq!(rooms.say("cellar", "hello").await.unwrap_err().kind(), ErrorKind::NotFound);
/// rooms.destroy("lobby").await?;
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rooms(Arc<RoomsInner>);

/// Everything that rooms need.
pub(crate) struct RoomParts {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn RoomStore>,
    pub(crate) interop: Option<Arc<dyn Interop>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<ConnectionRegistry>,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) lease: Arc<LeaseState>,
    pub(crate) callbacks: Arc<dyn RoomCallbacks>,
    pub(crate) observers: Observers,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) config: Arc<Config>,
}

struct RoomsInner {
    parts: RoomParts,
    local: RwLock<HashMap<Arc<str>, Arc<LocalRoom>>>,
    /// Counts destroyed rooms, so that a join that ran meanwhile notices.
    destroyed: AtomicU64,
    /// The number of the last join that was sent to the backend.
    last_join: AtomicU64,
    /// The presence changes that members received lately.
    presence: PresenceLog,
    /// The gaps that are being sent.
    gaps: Mutex<RoomGaps>,
    /// The reads of members for connections.
    views: SharedViews,
    /// Joins and leaves of rooms with presence that are not announced yet.
    waiting_changes: Mutex<WaitingChanges>,
    /// The highest number of a join or a listing whose outcome is unknown, and which may still arrive at the backend.
    given_up: AtomicU64,
    moves: MembershipMoves,
    /// The last messages of rooms, which could not be published when they were destroyed.
    pending_destroys: Mutex<Vec<(Incarnation, Publication)>>,
}

/// The changes of one connection in one room that wait. One that joins again has them announced first, so there is at most
/// a join, and the leave that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WaitingChange {
    joined_at: u64,
    /// The join may not be announced.
    join: bool,
    /// The leave is not announced; with the incarnation of the room in which the join was.
    left: Option<Incarnation>,
}

type WaitingChanges = HashMap<WaitingKey, WaitingChange>;

/// A room and a connection.
type WaitingKey = (Arc<str>, ConnectionId);

/// One room on this node.
#[derive(Default)]
struct LocalRoom {
    members: Mutex<LocalMembers>,
    /// Keeps the room's messages coming as long as there are members.
    subscription: OnceLock<Subscription>,
}

impl LocalRoom {
    fn members(&self) -> MutexGuard<'_, LocalMembers> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A room and a page of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStatus {
    /// Its name.
    pub room: String,
    /// A page of its members, and how many there are.
    pub members: Members,
}

impl RoomStatus {
    /// The room, as clients see it.
    pub fn view(&self) -> RoomView<'_> {
        let listed = self.members.listed.iter().map(|member| (member.id.as_str(), member.joined_at));
        let next = self.members.next.as_ref().map(MembersCursor::to_string);
        RoomView::new(&self.room, listed, self.members.count, next)
    }
}

impl Rooms {
    /// Most members on a page; all are counted. A page is small, because anybody who may ask for one may ask often.
    pub const LISTED: usize = 100;

    pub(crate) fn new(parts: RoomParts) -> Self {
        Self(Arc::new(RoomsInner {
            parts,
            local: RwLock::default(),
            destroyed: AtomicU64::new(0),
            last_join: AtomicU64::new(0),
            presence: PresenceLog::default(),
            gaps: Mutex::default(),
            views: SharedViews::default(),
            waiting_changes: Mutex::default(),
            given_up: AtomicU64::new(0),
            moves: MembershipMoves::default(),
            pending_destroys: Mutex::default(),
        }))
    }

    /// Creates a room.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `conflict` if the room exists, with the code `too_many_rooms` if there
    /// are `rooms.max_rooms`, `unavailable` if the backend does not answer.
    pub async fn create(&self, room: &str) -> Result<(), ActionError> {
        check_name(room)?;
        match self.store().create(room, self.config().rooms.max_rooms).await? {
            CreateOutcome::New => {
                self.notify(&Event::RoomCreated(room.into()));
                Ok(())
            }
            CreateOutcome::Existing => Err(ActionError::conflict("the room exists")),
            CreateOutcome::Full => {
                bound_reached("rooms.max_rooms");
                Err(ActionError::new(ErrorKind::Conflict, "too_many_rooms", "there are as many rooms as there may be"))
            }
        }
    }

    /// Whether there is such a room.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn exists(&self, room: &str) -> Result<bool, ActionError> {
        Ok(self.store().exists(room).await?)
    }

    /// The names of all rooms, sorted.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn list(&self) -> Result<Vec<String>, ActionError> {
        let mut rooms = self.store().list().await?;
        rooms.sort_unstable();
        Ok(rooms)
    }

    /// A room with the first page of its members, in the whole cluster. [`Rooms::members_page`] has the others.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `not_found` if there is no such room, `unavailable` if the backend does
    /// not answer.
    pub async fn status(&self, room: &str) -> Result<RoomStatus, ActionError> {
        Ok(RoomStatus { room: room.to_owned(), members: self.members_page(room, None).await? })
    }

    /// A page of at most [`Rooms::LISTED`] members of a room: the first, or the one after the page with this `next`.
    ///
    /// While members join and leave, those that stay are on one page at least.
    ///
    /// ```
    /// # use phalanx_core::{ActionError, Rooms};
    /// # async fn ids(rooms: &Rooms) -> Result<Vec<String>, ActionError> {
    /// let mut page = rooms.members_page("lobby", None).await?;
    /// let mut ids: Vec<String> = page.listed.iter().map(|member| member.id.to_string()).collect();
    /// while let Some(next) = page.next {
    ///     page = rooms.members_page("lobby", Some(&next)).await?;
    ///     ids.extend(page.listed.iter().map(|member| member.id.to_string()));
    /// }
    /// # Ok(ids)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Rooms::status`].
    pub async fn members_page(&self, room: &str, after: Option<&MembersCursor>) -> Result<Members, ActionError> {
        check_name(room)?;
        self.store().members_page(room, after, Self::LISTED).await?.ok_or_else(no_room)
    }

    /// A room with a page of its members, for a connection, which must be one of them.
    pub(crate) async fn status_for(
        &self,
        connection: &Connection,
        room: &str,
        after: Option<&MembersCursor>,
    ) -> Result<RoomStatus, ActionError> {
        self.check_member(connection, room).await?;
        let page = self.store().members_page(room, after, Self::LISTED);
        let members = if after.is_none() { self.0.views.members(room, page).await } else { page.await };
        Ok(RoomStatus { room: room.to_owned(), members: members?.ok_or_else(no_room)? })
    }

    async fn check_member(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        if connection.is_in(room) { Ok(()) } else { Err(self.no_member(room).await) }
    }

    /// The error for a connection that is not in a room, or for a room that does not exist.
    async fn no_member(&self, room: &str) -> ActionError {
        match self.exists(room).await {
            Ok(true) => ActionError::forbidden("the connection is not in this room"),
            Ok(false) => no_room(),
            Err(error) => error,
        }
    }

    fn local(&self, room: &Arc<str>) -> Option<Arc<LocalRoom>> {
        self.0.local.read().unwrap_or_else(PoisonError::into_inner).get(room).cloned()
    }

    fn store(&self) -> &dyn RoomStore {
        &*self.0.parts.store
    }

    fn bus(&self) -> &dyn Bus {
        &*self.0.parts.bus
    }

    fn config(&self) -> &Config {
        &self.0.parts.config
    }

    fn callbacks(&self) -> &dyn RoomCallbacks {
        &*self.0.parts.callbacks
    }

    fn metrics(&self) -> &NodeMetrics {
        &self.0.parts.metrics
    }

    fn notify(&self, event: &Event) {
        self.0.parts.observers.notify(event);
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rooms")
    }
}

fn no_room() -> ActionError {
    ActionError::not_found("there is no such room")
}

/// Checks that a room's name is 1 to 100 of `A-Z a-z 0-9 : . _ -`.
pub(crate) fn check_name(room: &str) -> Result<(), ActionError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    if (1..=100).contains(&room.len()) && room.bytes().all(allowed) {
        return Ok(());
    }
    let detail = Detail::new("room", "pattern", "must be 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    Err(ActionError::invalid_input(vec![detail]))
}

#[cfg(test)]
mod tests;

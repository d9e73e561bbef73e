//! Tags of connections: messages to all connections with a tag, and calls of them, whatever nodes they are on.
//!
//! Tags are held by the node of each connection, and nothing of them is in the backend but one channel a tag, to which a
//! node is subscribed while it has a connection with it. So there is nothing to remove after a node that died, and a message
//! costs the nodes nothing that have no connection with its tag.
//!
//! Connections of this node get a message from its sender directly, all others over the bus, from which a node ignores what
//! it sent itself: so there is no one order of the messages of several senders, as there is in a room.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Bus, Subscription, TagMessage, TagMessageKind};
use crate::config::Config;
use crate::connection::broadcast::push_to_all;
use crate::connection::{Connection, ConnectionTags, TagHost};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::gap_pace::GapPace;
use crate::id::{ConnectionId, Generation, NodeIdentity, Tag, TagId, TagKind};
use crate::metrics::{NodeMetrics, bound_reached};
use crate::protocol::{self, CloseReason, GapEvent};
use crate::remote::execute::Executor;
use crate::remote::pending::RemoteCalls;
use crate::remote::serve::CallServer;
use crate::shutdown::Shutdown;

mod close;
mod gap;
mod results;
mod selection;
mod serve;
mod table;
mod wire;

pub use results::{TagCount, TagList, TagResults};
pub use selection::TaggedConnections;

use table::LocalTag;

/// Everything that tags need.
pub(crate) struct TagParts {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) calls: Arc<RemoteCalls>,
    pub(crate) call_server: CallServer,
    pub(crate) executor: Executor,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) config: Arc<Config>,
}

/// A reason to read a session of connections again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSign {
    /// It is said to have ended or to have a new id.
    Changed,
    /// That it has may have been missed.
    Gap,
}

/// Learns of a sign about a session, and its connections on this node. Called by the task that delivers messages, so it must
/// not wait.
pub(crate) type SessionObserver = Box<dyn Fn(SessionSign, &[Connection]) + Send + Sync>;

/// The tags of this node's connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tags(Arc<TagsInner>);

struct TagsInner {
    parts: TagParts,
    local: RwLock<HashMap<TagId, Arc<LocalTag>>>,
    /// The connections that are to be sent a gap.
    gaps: Mutex<GapPace<Connection>>,
    /// The frame of all gaps, so that one that is not written yet is recognised.
    gap_frame: Bytes,
    session_observer: OnceLock<SessionObserver>,
}

impl Tags {
    pub(crate) fn new(parts: TagParts) -> Self {
        let (local, gaps, session_observer) = Default::default();
        let gap_frame = protocol::encode(&GapEvent::OF_TAGS);
        Self(Arc::new(TagsInner { parts, local, gaps, gap_frame, session_observer }))
    }

    /// The host of the tags of registered connections.
    pub(crate) fn host(&self) -> Weak<dyn TagHost> {
        let host: Arc<dyn TagHost> = self.0.clone();
        Arc::downgrade(&host)
    }

    /// Gives a connection the tags of its session and of its user, in place of others of these kinds. Completes when whatever is sent to them from then on arrives.
    ///
    /// # Errors
    ///
    /// `conflict` if the connection has ended, `unavailable` if the backend does not answer.
    pub(crate) async fn set_session(
        &self,
        connection: &Connection,
        session: TagId,
        user: Option<&str>,
    ) -> Result<(), ActionError> {
        let session = Tag::of_session(session);
        let user = user.map(Tag::of_user);
        let is_earlier = |tag: &&Tag| {
            tag.kind != TagKind::Application
                && tag.id != session.id
                && user.as_ref().is_none_or(|user| tag.id != user.id)
        };
        let earlier: Vec<TagId> = connection.own_tags().all().iter().filter(is_earlier).map(|tag| tag.id).collect();
        for id in earlier {
            self.0.leave(connection, id);
        }
        let of_user = async {
            match user {
                Some(user) => self.0.give(connection, user).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(self.0.give(connection, session), of_user).map(drop)
    }

    /// Closes the connections of a session on this node, but for `except`.
    pub(crate) fn close_session(&self, session: TagId, reason: CloseReason, except: Option<&ConnectionId>) {
        let members = self.0.members(session);
        members.iter().filter(|member| Some(member.id()) != except).for_each(|member| member.close(reason));
    }

    /// Has signs about sessions observed. Only the first observer counts.
    pub(crate) fn observe_sessions(&self, observer: SessionObserver) {
        let _ = self.0.session_observer.set(observer);
    }

    /// Takes all tags from a connection that has ended.
    pub(crate) fn remove_all(&self, connection: &Connection) {
        let tags = connection.own_tags().close();
        for tag in tags {
            self.0.exit(connection, tag.id);
        }
    }

    /// Receives a message of the bus.
    pub(crate) fn receive(&self, from: Generation, message: TagMessage) {
        if self.0.parts.identity.is_own(from) {
            if message.kind == TagMessageKind::Call {
                self.0.parts.calls.receive_own(from, message.id);
            }
            return;
        }
        self.0.parts.metrics.tag_received.increment(1);
        match message.kind {
            TagMessageKind::Frame => self.0.deliver(message.tag, &message.payload),
            TagMessageKind::Call => self.serve(from, message),
        }
    }
}

impl TagsInner {
    /// Gives a tag, and waits until the subscription stands. If that fails the connection has the tag all the same, and the
    /// subscription is made when the bus is back.
    async fn give(&self, connection: &Connection, tag: Tag) -> Result<(), ActionError> {
        self.check(&connection.own_tags(), &tag)?; // before Redis subscribes for nothing
        let (subscription, confirmed) = self.parts.bus.subscribe_to_tag(tag.id);
        self.enter(connection, tag, subscription)?;
        Ok(confirmed.await?)
    }

    fn check(&self, tags: &ConnectionTags, tag: &Tag) -> Result<(), ActionError> {
        if tags.closed {
            return Err(ActionError::conflict("the connection has ended"));
        }
        let is_more = tag.kind == TagKind::Application && !tags.has(tag.id);
        if is_more && tags.of_application().count() >= self.parts.config.websocket.max_tags {
            bound_reached("websocket.max_tags");
            let message = "the connection has as many tags as it may have";
            return Err(ActionError::new(ErrorKind::Conflict, "too_many_tags", message));
        }
        Ok(())
    }

    /// Adds a connection to those with a tag, unless it is one.
    fn enter(&self, connection: &Connection, tag: Tag, subscription: Subscription) -> Result<(), ActionError> {
        let mut subscription = Some(subscription); // dropped after the guards, unless it is the first
        let mut tags = connection.own_tags();
        self.check(&tags, &tag)?;
        if tags.has(tag.id) {
            return Ok(());
        }
        let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
        let entry = local.entry(tag.id).or_insert_with(|| {
            self.parts.metrics.tags.increment(1);
            Arc::new(LocalTag::new(&tag, subscription.take()))
        });
        entry.members().insert(connection);
        tags.add(tag);
        Ok(())
    }

    fn leave(&self, connection: &Connection, tag: TagId) -> bool {
        let mut tags = connection.own_tags(); // until the end: a tag that is given meanwhile is given after this
        let had = tags.remove(tag).is_some();
        if had {
            self.exit(connection, tag);
        }
        had
    }

    /// Removes a connection from those with a tag.
    fn exit(&self, connection: &Connection, tag: TagId) {
        let last = {
            let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = local.get(&tag) else { return };
            let is_empty = {
                let mut members = entry.members();
                members.remove(connection);
                members.is_empty()
            };
            is_empty.then(|| local.remove(&tag)).flatten()
        };
        if last.is_some() {
            self.parts.metrics.tags.decrement(1);
        }
    }

    fn find(&self, tag: TagId) -> Option<Arc<LocalTag>> {
        self.local.read().unwrap_or_else(PoisonError::into_inner).get(&tag).cloned()
    }

    /// The connections of this node with a tag.
    fn members(&self, tag: TagId) -> Vec<Connection> {
        self.find(tag).map(|local| local.members().all().cloned().collect()).unwrap_or_default()
    }

    /// Queues a frame for the connections of this node with a tag. Never waits.
    fn deliver(&self, tag: TagId, frame: &Bytes) {
        // Of a node with other settings: it would close all of them.
        if frame.len() as u64 > self.parts.config.websocket.outbox_bytes.as_u64() {
            return bound_reached("websocket.outbox_bytes");
        }
        let Some(local) = self.find(tag) else { return };
        let (wakes, count) = {
            let members = local.members();
            (push_to_all(members.all(), members.len(), frame), members.len())
        };
        self.parts.metrics.tag_deliveries.increment(count as u64);
        if let Some(wakes) = wakes {
            self.parts.shutdown.spawn_own(wakes.run());
        }
    }
}

#[async_trait]
impl TagHost for TagsInner {
    async fn tag(&self, connection: &Connection, name: &str) -> Result<(), ActionError> {
        self.give(connection, application_tag(name)?).await
    }

    fn untag(&self, connection: &Connection, name: &str) -> bool {
        application_tag(name).is_ok_and(|tag| self.leave(connection, tag.id))
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tags")
    }
}

/// A tag that an application names: 1 to 100 of `A-Z a-z 0-9 : . _ -`.
fn application_tag(name: &str) -> Result<Tag, ActionError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    if (1..=100).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(Tag::of_application(name));
    }
    let detail = Detail::new("tag", "pattern", "must be 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    Err(ActionError::invalid_input(vec![detail]))
}

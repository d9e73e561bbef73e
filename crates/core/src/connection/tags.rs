//! The tags of a connection, as the connection knows them.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;

use super::Connection;
use crate::error::{ActionError, ErrorKind};
use crate::id::{Tag, TagId, TagKind};

/// The part of a node that gives tags to its connections.
#[async_trait]
pub(crate) trait TagHost: Send + Sync {
    async fn tag(&self, connection: &Connection, name: &str) -> Result<(), ActionError>;

    fn untag(&self, connection: &Connection, name: &str) -> bool;
}

/// All tags of a connection.
#[derive(Default)]
pub(crate) struct ConnectionTags {
    host: Option<Weak<dyn TagHost>>,
    all: Vec<Tag>,
    /// The connection has ended, and takes no more tags.
    pub(crate) closed: bool,
    /// A gap of its tags is to be sent.
    pub(crate) gap_due: bool,
    /// It is to be closed, in its turn among others.
    pub(crate) close_due: bool,
}

impl ConnectionTags {
    pub(crate) fn all(&self) -> &[Tag] {
        &self.all
    }

    pub(crate) fn has(&self, id: TagId) -> bool {
        self.all.iter().any(|tag| tag.id == id)
    }

    /// The tags that the application gave it.
    pub(crate) fn of_application(&self) -> impl Iterator<Item = &Tag> {
        self.all.iter().filter(|tag| tag.kind == TagKind::Application)
    }

    pub(crate) fn add(&mut self, tag: Tag) {
        self.all.push(tag);
    }

    pub(crate) fn remove(&mut self, id: TagId) -> Option<Tag> {
        let at = self.all.iter().position(|tag| tag.id == id)?;
        Some(self.all.swap_remove(at))
    }

    /// Ends the connection's tags; returns those that it had.
    pub(crate) fn close(&mut self) -> Vec<Tag> {
        self.closed = true;
        std::mem::take(&mut self.all)
    }
}

impl Connection {
    /// Gives the connection a tag: [`tagged`](crate::Connections::tagged) finds it by that, on every node, until
    /// [`untag`](Self::untag) or its end.
    ///
    /// When this returns, the connection receives everything that is sent to the tag from then on, by any node. A tag that
    /// it has already is given again, and counted once. Cancel safe: a call that was dropped has given the tag.
    ///
    /// ```
    /// use phalanx_core::{ActionError, Connection, Context};
    /// use serde_json::json;
    ///
    /// /// The body of an action that takes `connection: Connection`: the client follows a ticket.
    /// async fn follow(connection: &Connection, ticket: u32) -> Result<(), ActionError> {
    ///     connection.tag(&format!("ticket:{ticket}")).await
    /// }
    ///
    /// /// Sends those who follow it the news.
    /// async fn closed(ctx: &Context, ticket: u32) -> Result<(), ActionError> {
    ///     ctx.connections().tagged(&format!("ticket:{ticket}")).send(&json!({ "closed": ticket })).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not 1 to 100 of `A-Z a-z 0-9 : . _ -`; `conflict` if the connection has ended, and with the
    /// code `too_many_tags` beyond `websocket.max_tags`. `unavailable` if the backend does not answer: the connection has
    /// the tag all the same, and receives what is sent to it on this node; what others send, as soon as the backend is back.
    pub async fn tag(&self, tag: &str) -> Result<(), ActionError> {
        self.tag_host()?.tag(self, tag).await
    }

    /// Takes a tag from the connection; returns whether it had it.
    pub fn untag(&self, tag: &str) -> bool {
        self.tag_host().is_ok_and(|host| host.untag(self, tag))
    }

    /// The tags that the application gave it.
    pub fn tags(&self) -> Vec<Arc<str>> {
        self.own_tags().of_application().map(|tag| tag.name.clone()).collect()
    }

    /// Has the connection's tags given by that node, which has it registered.
    pub(crate) fn set_tag_host(&self, host: Weak<dyn TagHost>) {
        self.own_tags().host = Some(host);
    }

    fn tag_host(&self) -> Result<Arc<dyn TagHost>, ActionError> {
        let host = self.own_tags().host.clone();
        let host = host.ok_or_else(|| ActionError::conflict("the connection is not registered"))?;
        host.upgrade().ok_or_else(|| ActionError::of(ErrorKind::Unavailable, "the node has stopped"))
    }

    pub(crate) fn own_tags(&self) -> MutexGuard<'_, ConnectionTags> {
        self.0.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The tags of a connection, as the connection knows them.

use crate::id::{Tag, TagId, TagKind};

/// All tags of a connection.
#[derive(Default)]
pub(crate) struct ConnectionTags {
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

//! The connections of this node with one tag.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;

use crate::backend::Subscription;
use crate::connection::Connection;
use crate::id::{ConnectionId, Tag, TagKind};

/// One tag on this node.
pub(super) struct LocalTag {
    pub(super) kind: TagKind,
    members: Mutex<TagMembers>,
    /// Keeps the tag's messages coming.
    _subscription: Option<Subscription>,
}

impl LocalTag {
    pub(super) fn new(tag: &Tag, subscription: Option<Subscription>) -> Self {
        Self { kind: tag.kind, members: Mutex::default(), _subscription: subscription }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, TagMembers> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections with a tag. Mostly there is one, of a session or a user, and a map would take more than all the rest.
#[derive(Default)]
pub(super) enum TagMembers {
    #[default]
    None,
    One(Connection),
    Many(IndexMap<ConnectionId, Connection>),
}

impl TagMembers {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(members) => members.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(member) => (Some(member), None),
            Self::Many(members) => (None, Some(members.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, member: &Connection) {
        let entry = |member: &Connection| (member.id().clone(), member.clone());
        match self {
            Self::None => *self = Self::One(member.clone()),
            Self::One(first) => *self = Self::Many([entry(first), entry(member)].into_iter().collect()),
            Self::Many(members) => drop(members.insert(member.id().clone(), member.clone())),
        }
    }

    /// Removes a member; another one with its id stays.
    pub(super) fn remove(&mut self, member: &Connection) {
        match self {
            Self::One(one) if one == member => *self = Self::None,
            Self::Many(members) if members.get(member.id()) == Some(member) => {
                members.swap_remove(member.id());
                if members.len() <= 1 {
                    *self = members.pop().map_or(Self::None, |(_, last)| Self::One(last));
                }
            }
            Self::None | Self::One(_) | Self::Many(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Attributes, NewConnection, OutboxLimit};

    fn connection(id: &str) -> Connection {
        Connection::new(NewConnection {
            id: ConnectionId::parse(id).unwrap(),
            fingerprint: "f".into(),
            remote: ([127, 0, 0, 1], 1).into(),
            attributes: Attributes::limited(20),
            connected_at: 0,
            outbox: OutboxLimit { frames: 8, bytes: 100 },
        })
    }

    fn ids(members: &TagMembers) -> Vec<&str> {
        members.all().map(|member| member.id().as_str()).collect()
    }

    #[test]
    fn members_are_added_and_removed_whatever_their_number() {
        let all: Vec<Connection> = ["a", "b", "c"].into_iter().map(connection).collect();
        let mut members = TagMembers::default();
        assert!(members.is_empty());
        members.remove(&all[0]);
        for (number, member) in all.iter().enumerate() {
            members.insert(member);
            assert_eq!(members.len(), number + 1);
        }
        assert_eq!(ids(&members), ["a", "b", "c"]);
        members.remove(&connection("b"));
        assert_eq!(members.len(), 3, "another one of that id is none of them");
        members.remove(&all[1]);
        assert_eq!(ids(&members), ["a", "c"]);
        members.remove(&all[0]);
        assert_eq!((ids(&members), members.len()), (vec!["c"], 1));
        members.remove(&all[0]);
        members.remove(&connection("c"));
        assert_eq!(members.len(), 1);
        members.remove(&all[2]);
        assert!(members.is_empty() && ids(&members).is_empty());
    }
}

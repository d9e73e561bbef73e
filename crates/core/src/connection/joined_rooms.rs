//! The rooms that a connection is in, as its own node knows them.

use std::sync::Arc;

use crate::id::Incarnation;

/// One room that a connection is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedRoom {
    pub(crate) room: Arc<str>,
    /// When it joined, in Unix milliseconds.
    pub(crate) joined_at: u64,
    /// Which room of that name it joined.
    pub(crate) incarnation: Incarnation,
    /// The room was destroyed, and its `after_leave` hooks have not run yet.
    destroyed: bool,
}

impl JoinedRoom {
    pub(crate) fn new(room: Arc<str>, joined_at: u64, incarnation: Incarnation) -> Self {
        Self { room, joined_at, incarnation, destroyed: false }
    }
}

/// All rooms that a connection is in.
#[derive(Debug, Default)]
pub(crate) struct JoinedRooms {
    all: Vec<JoinedRoom>,
    last_joined: u64,
    /// The connection leaves all its rooms and joins no other.
    pub(crate) closed: bool,
}

impl JoinedRooms {
    /// The names of the rooms.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.standing().map(|joined| &joined.room)
    }

    /// The membership of that room.
    pub(crate) fn find(&self, room: &str) -> Option<&JoinedRoom> {
        self.standing().find(|joined| &*joined.room == room)
    }

    /// The rooms that were not destroyed.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &JoinedRoom> {
        self.all.iter().filter(|joined| !joined.destroyed)
    }

    /// The time of a new join: later than all before, so that a late leave of an earlier one does not end it.
    pub(crate) fn next_joined_at(&mut self, now_ms: u64) -> u64 {
        self.last_joined = now_ms.max(self.last_joined + 1);
        self.last_joined
    }

    pub(crate) fn add(&mut self, joined: JoinedRoom) {
        self.all.push(joined);
    }

    /// Moves a membership to another time of joining, and to that incarnation of its room.
    pub(crate) fn rejoin(&mut self, room: &str, joined_at: u64, incarnation: Incarnation) {
        self.last_joined = self.last_joined.max(joined_at);
        for joined in self.all.iter_mut().filter(|joined| &*joined.room == room && !joined.destroyed) {
            (joined.joined_at, joined.incarnation) = (joined_at, incarnation);
        }
    }

    /// Marks the membership of a room that was destroyed, and returns whether there was one. It is removed when its
    /// `after_leave` hooks have run.
    pub(crate) fn mark_destroyed(&mut self, room: &str, incarnation: Incarnation) -> bool {
        let mut all = self.all.iter_mut();
        let joined = all.find(|joined| &*joined.room == room && joined.incarnation == incarnation && !joined.destroyed);
        joined.map(|joined| joined.destroyed = true).is_some()
    }

    /// Removes a membership; `None` if that was done before.
    pub(crate) fn remove(&mut self, room: &str, incarnation: Incarnation) -> Option<JoinedRoom> {
        let at = self.all.iter().position(|joined| &*joined.room == room && joined.incarnation == incarnation)?;
        Some(self.all.remove(at))
    }

    /// All memberships, also of destroyed rooms.
    pub(crate) fn all(&self) -> Vec<JoinedRoom> {
        self.all.clone()
    }
}

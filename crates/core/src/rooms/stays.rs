//! The rooms a connection is in, as its own node knows them.

use std::sync::Arc;

/// One room that a connection is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) room: Arc<str>,
    /// When it joined, in Unix milliseconds.
    pub(crate) joined_at: u64,
    /// Which room of that name it joined.
    pub(crate) life: u64,
    /// The room was destroyed, and the leave hooks were not asked yet.
    over: bool,
}

impl Stay {
    pub(crate) fn new(room: Arc<str>, joined_at: u64, life: u64) -> Self {
        Self { room, joined_at, life, over: false }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Stays {
    all: Vec<Stay>,
    last_joined: u64,
    pub(crate) ended: bool,
}

impl Stays {
    /// The names of the rooms.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.standing().map(|stay| &stay.room)
    }

    /// The stay in that room.
    pub(crate) fn find(&self, room: &str) -> Option<&Stay> {
        self.standing().find(|stay| &*stay.room == room)
    }

    /// Those whose rooms were not destroyed.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Stay> {
        self.all.iter().filter(|stay| !stay.over)
    }

    /// The time of a new join: later than those before, so that no late leave of theirs is taken for its own.
    pub(crate) fn next_joined_at(&mut self, now_ms: u64) -> u64 {
        self.last_joined = now_ms.max(self.last_joined + 1);
        self.last_joined
    }

    pub(crate) fn begin(&mut self, stay: Stay) {
        self.all.push(stay);
    }

    /// The stay counts as begun then, in that room of its name.
    pub(crate) fn begins_anew(&mut self, room: &str, joined_at: u64, life: u64) {
        self.last_joined = self.last_joined.max(joined_at);
        for stay in self.all.iter_mut().filter(|stay| &*stay.room == room && !stay.over) {
            (stay.joined_at, stay.life) = (joined_at, life);
        }
    }

    /// That room was destroyed: says whether a stay is over with it. Who asks its leave hooks ends it.
    pub(crate) fn destroyed(&mut self, room: &str, life: u64) -> bool {
        let stay = self.all.iter_mut().find(|stay| &*stay.room == room && stay.life == life && !stay.over);
        stay.map(|stay| stay.over = true).is_some()
    }

    /// Ends a stay; `None` if that was done before.
    pub(crate) fn end(&mut self, room: &str, life: u64) -> Option<Stay> {
        let at = self.all.iter().position(|stay| &*stay.room == room && stay.life == life)?;
        Some(self.all.remove(at))
    }

    /// The first of them all.
    pub(crate) fn first(&self) -> Option<Stay> {
        self.all.first().cloned()
    }
}

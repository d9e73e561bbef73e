//! Every key and every channel in Redis, in one place.

use phalanx_core::Generation;

/// The names of keys and channels. Those that an Actionhero node looks for keep their names.
#[derive(Clone, Debug)]
pub struct Keys {
    shared: String,
    own: String,
    cluster: String,
}

impl Keys {
    /// Names keys for a cluster: `shared` is the prefix it has in common with Actionhero nodes, `actionhero:` there.
    pub fn new(shared: &str, cluster: &str) -> Self {
        Self { shared: shared.to_owned(), own: format!("phalanx:{cluster}:"), cluster: cluster.to_owned() }
    }

    /// Before the names of values, lists and counters.
    pub(crate) fn cache_prefix(&self) -> String {
        format!("{}cache:", self.shared)
    }

    /// A value, a list or a counter.
    pub(crate) fn cache(&self, key: &str) -> String {
        format!("{}cache:{key}", self.shared)
    }

    /// Before the names of locks.
    pub(crate) fn lock_prefix(&self) -> String {
        format!("{}lock:", self.shared)
    }

    /// Who holds a lock: its owner, for as long as the lease runs.
    pub(crate) fn lock(&self, name: &str) -> String {
        format!("{}lock:{name}", self.shared)
    }

    /// The last fencing token of a lock.
    pub(crate) fn fence(&self, name: &str) -> String {
        format!("{}fence:{name}", self.own)
    }

    /// The names of rooms: a set.
    pub(crate) fn rooms(&self) -> String {
        format!("{}chatRoom:rooms", self.shared)
    }

    /// The members of a room: a hash from connection to JSON.
    pub(crate) fn members(&self, room: &str) -> String {
        format!("{}chatRoom:members:{room}", self.shared)
    }

    /// Which room of its name each is: a hash to the time when it was made, in microseconds.
    pub(crate) fn lives(&self) -> String {
        format!("{}lives", self.own)
    }

    /// The lives of rooms that were closed and are not forgotten: a hash.
    pub(crate) fn closed(&self) -> String {
        format!("{}closed", self.own)
    }

    /// When each lease runs out, in microseconds of Redis's time: a sorted set of generations.
    pub(crate) fn leases(&self) -> String {
        format!("{}leases", self.own)
    }

    /// Which generation answers for each name that a living node bears: a hash.
    pub(crate) fn names(&self) -> String {
        format!("{}names", self.own)
    }

    /// The names that a generation bears: a set.
    pub(crate) fn borne_by(&self, generation: Generation) -> String {
        format!("{}names:{generation}", self.own)
    }

    /// What is known of each node: a hash from generation to JSON.
    pub(crate) fn nodes(&self) -> String {
        format!("{}nodes", self.own)
    }

    /// Rises whenever a node comes or goes: a counter.
    pub(crate) fn epoch(&self) -> String {
        format!("{}epoch", self.own)
    }

    /// Names the present life of the data: gone when all is lost.
    pub(crate) fn life(&self) -> String {
        format!("{}life", self.own)
    }

    /// Until when dead generations are claimed by those who clean up, in microseconds: a sorted set.
    pub(crate) fn reaped(&self) -> String {
        format!("{}reaped", self.own)
    }

    /// Who cleans up after each dead generation: a hash.
    pub(crate) fn reapers(&self) -> String {
        format!("{}reapers", self.own)
    }

    /// What is to be cleaned after a generation: a hash from `<room> <connection>` to the time of the join.
    pub(crate) fn held(&self, generation: &str) -> String {
        format!("{}held:{generation}", self.own)
    }

    /// The leaves of a dead generation that are still to be told: a list.
    pub(crate) fn leaves(&self, generation: Generation) -> String {
        format!("{}leaves:{generation}", self.own)
    }

    /// The channel of all nodes.
    pub(crate) fn everyone(&self) -> String {
        self.cluster.clone()
    }

    /// The channel of one node.
    pub(crate) fn inbox(&self, generation: Generation) -> String {
        [&self.cluster, ":node:", generation.as_str()].concat()
    }

    /// Before the names of rooms in channels.
    pub(crate) fn room_prefix(&self) -> String {
        format!("{}:room:", self.cluster)
    }

    /// The channel of a room.
    pub(crate) fn room(&self, room: &str) -> String {
        format!("{}:room:{room}", self.cluster)
    }
}

/// What the JSON of a member contains that belongs to this generation.
pub(crate) fn mark(generation: Generation) -> String {
    format!("\"generation\":\"{generation}\"")
}

/// A pattern of SCAN that finds exactly what begins with `prefix`: its characters mean themselves.
pub(crate) fn beginning_with(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 8);
    for character in prefix.chars() {
        if "*?[]\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_others_look_for_keep_their_names() {
        let keys = Keys::new("actionhero:", "shop");
        assert_eq!(keys.cache("a"), "actionhero:cache:a");
        assert_eq!(keys.lock("a"), "actionhero:lock:a");
        assert_eq!(keys.rooms(), "actionhero:chatRoom:rooms");
        assert_eq!(keys.members("a"), "actionhero:chatRoom:members:a");
        assert_eq!(keys.fence("a"), "phalanx:shop:fence:a");
        assert_eq!(keys.room("a"), "shop:room:a");
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(beginning_with("a*[b]?\\"), r"a\*\[b\]\?\\*");
    }
}

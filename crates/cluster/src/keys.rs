//! The names of every key and channel in Redis, in one place.
//!
//! Some names are older than the words of the code (`lives`, `life`, `reaped`, `held`). They are part of the format
//! that nodes of two releases share while a cluster is restarted node by node, so they must not change.

use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::TagId;

mod sessions;
mod tasks;

/// The prefix of resque's keys, unless it is set.
const RESQUE_PREFIX: &str = "resque:";

/// The names of keys and channels. Keys that Actionhero nodes read too have the names that Actionhero gives them.
#[derive(Clone, Debug)]
pub struct Keys {
    shared_prefix: String,
    own_prefix: String,
    /// The start of the keys that resque tools read too.
    tasks_prefix: String,
    /// The start of each channel. Channels are the same in all databases of a Redis, unlike keys.
    channels: String,
}

impl Keys {
    /// Builds the names for a cluster. `shared_prefix` starts the keys that Actionhero nodes use too; Actionhero's
    /// default is `actionhero:`.
    pub fn new(shared_prefix: &str, cluster: &str) -> Self {
        Self {
            shared_prefix: shared_prefix.to_owned(),
            own_prefix: format!("phalanx:{cluster}:"),
            tasks_prefix: RESQUE_PREFIX.to_owned(),
            channels: cluster.to_owned(),
        }
    }

    /// The names in a database of Redis: its number is in the channels, unless it is 0.
    #[must_use]
    pub fn in_database(mut self, number: i64) -> Self {
        if number != 0 {
            self.channels = format!("{}@{number}", self.channels);
        }
        self
    }

    /// The names with another prefix of resque's keys than `resque:`.
    #[must_use]
    pub fn with_tasks_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.tasks_prefix);
        self
    }

    /// The name of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        self.own_prefix["phalanx:".len()..].trim_end_matches(':')
    }

    /// The clusters that use the shared prefix: a hash from the name to the time at which it was seen, in seconds.
    pub(crate) fn clusters(&self) -> String {
        format!("{}phalanx:clusters", self.shared_prefix)
    }

    /// The keys and the channels that a user of Redis needs rights for, in the syntax of its ACLs.
    pub(crate) fn rights(&self) -> (String, String) {
        let Self { shared_prefix, own_prefix, tasks_prefix, channels } = self;
        (format!("~{shared_prefix}* ~{own_prefix}* ~{tasks_prefix}*"), format!("&{channels} &{channels}:*"))
    }

    /// The starts of all keys.
    pub(crate) fn prefixes(&self) -> [&str; 3] {
        [&self.own_prefix, &self.shared_prefix, &self.tasks_prefix]
    }

    /// The start of all channels.
    pub(crate) fn channels(&self) -> &str {
        &self.channels
    }

    /// The settings by which all keys get the same hash tag, as a sentence.
    pub(crate) fn one_slot(&self) -> String {
        let name = self.cluster().trim_matches(['{', '}']);
        let tag = format!("{{{name}}}:");
        let without_tag = |prefix: &String| prefix.trim_start_matches(&tag).replace(['{', '}'], "");
        let [prefix, tasks] = [&self.shared_prefix, &self.tasks_prefix].map(without_tag);
        format!(
            "Redis is in cluster mode, where all keys must share a slot: set cluster.name = \"{{{name}}}\", \
             redis.prefix = \"{{{name}}}:{prefix}\" and tasks.prefix = \"{{{name}}}:{tasks}\", and let REDIS_URL lead to \
             the server of that slot"
        )
    }

    /// The prefix of the keys of values, lists and counters.
    pub(crate) fn cache_prefix(&self) -> String {
        format!("{}cache:", self.shared_prefix)
    }

    /// The key of a value, a list or a counter.
    pub(crate) fn cache(&self, key: &str) -> String {
        format!("{}cache:{key}", self.shared_prefix)
    }

    /// The prefix of the keys of locks.
    pub(crate) fn lock_prefix(&self) -> String {
        format!("{}lock:", self.shared_prefix)
    }

    /// The owner of a lock: a string that expires with the lease.
    pub(crate) fn lock(&self, name: &str) -> String {
        format!("{}lock:{name}", self.shared_prefix)
    }

    /// The last fencing token of a lock.
    pub(crate) fn fence(&self, name: &str) -> String {
        format!("{}fence:{name}", self.own_prefix)
    }

    /// The counts of a subject of a limit, of slices of this window: a string that expires. Several limits of one subject have one
    /// hash tag, unless the name of the cluster is in braces: then all keys of the cluster have that.
    pub(crate) fn limit(&self, name: &str, subject: &str, window: Duration) -> String {
        // By parts: each limited call has one, and `format!` costs several times as much.
        let mut key = String::with_capacity(self.own_prefix.len() + subject.len() + name.len() + 32);
        for part in [&*self.own_prefix, "limit:{", subject, "}:", name, ":"] {
            key.push_str(part);
        }
        key.push_str(itoa::Buffer::new().format(window.as_millis()));
        key
    }

    /// The names of rooms: a set.
    pub(crate) fn rooms(&self) -> String {
        format!("{}chatRoom:rooms", self.shared_prefix)
    }

    /// The members of a room: a hash from connection to JSON.
    pub(crate) fn members(&self, room: &str) -> String {
        format!("{}chatRoom:members:{room}", self.shared_prefix)
    }

    /// The incarnation of each room: a hash from the name to the time of its creation, in microseconds.
    pub(crate) fn incarnations(&self) -> String {
        format!("{}lives", self.own_prefix)
    }

    /// The incarnations of rooms that were closed and not yet forgotten: a hash from the name.
    pub(crate) fn closed(&self) -> String {
        format!("{}closed", self.own_prefix)
    }

    /// The last incarnation of each room that was closed lately: a hash from the name.
    pub(crate) fn ended(&self) -> String {
        format!("{}ended", self.own_prefix)
    }

    /// When each of them was closed, in microseconds of Redis's clock: a sorted set of names.
    pub(crate) fn ended_at(&self) -> String {
        format!("{}ended:at", self.own_prefix)
    }

    /// When a node noticed that data was lost, in microseconds of Redis's clock. It expires when rooms are restored.
    pub(crate) fn lost(&self) -> String {
        format!("{}lost", self.own_prefix)
    }

    /// The number of the last renewal of each generation: a hash.
    pub(crate) fn beats(&self) -> String {
        format!("{}beats", self.own_prefix)
    }

    /// When each generation was registered, or reaped, in microseconds of Redis's clock: a sorted set. What has no lease is
    /// removed after a day.
    pub(crate) fn registered(&self) -> String {
        format!("{}registered", self.own_prefix)
    }

    /// The time at which each lease expires, in microseconds of Redis's clock: a sorted set of generations.
    pub(crate) fn leases(&self) -> String {
        format!("{}leases", self.own_prefix)
    }

    /// The owners of names: a hash from each generation that a live node has or had to the one it has now.
    pub(crate) fn names(&self) -> String {
        format!("{}names", self.own_prefix)
    }

    /// The names that belong to a generation, its own and its earlier ones: a set.
    pub(crate) fn names_of(&self, generation: Generation) -> String {
        format!("{}names:{generation}", self.own_prefix)
    }

    /// The records of nodes: a hash from generation to JSON.
    pub(crate) fn nodes(&self) -> String {
        format!("{}nodes", self.own_prefix)
    }

    /// The epoch of the list of nodes: a number that rises whenever a node registers or is removed.
    pub(crate) fn epoch(&self) -> String {
        format!("{}epoch", self.own_prefix)
    }

    /// The epoch of the store: a random text, written by the first registration and lost with all other data.
    pub(crate) fn store_epoch(&self) -> String {
        format!("{}life", self.own_prefix)
    }

    /// The number of the connection over which each generation publishes: a hash.
    pub(crate) fn links(&self) -> String {
        format!("{}links", self.own_prefix)
    }

    /// The time at which each reaper's claim expires, in microseconds of Redis's clock: a sorted set of dead
    /// generations.
    pub(crate) fn claims(&self) -> String {
        format!("{}reaped", self.own_prefix)
    }

    /// The reaper of each dead generation: a hash from the dead generation to the reaper's.
    pub(crate) fn reapers(&self) -> String {
        format!("{}reapers", self.own_prefix)
    }

    /// The memberships that a reaper must remove after a generation: a hash from `<room> <connection>` to the time of
    /// the join.
    pub(crate) fn memberships_of(&self, generation: &str) -> String {
        format!("{}held:{generation}", self.own_prefix)
    }

    /// A key that is never set. A full Redis (`maxmemory`, `noeviction`) refuses a script whose first write may need memory,
    /// and none of its later ones. So a script that renews, frees or hands on begins with the removal of this key.
    pub(crate) fn unused(&self) -> String {
        format!("{}-", self.own_prefix)
    }

    /// The highest number of a join of a generation that was undone, for as long as the join may still arrive.
    pub(crate) fn join_floor(&self, generation: Generation) -> String {
        format!("{}floor:{generation}", self.own_prefix)
    }

    /// The leaves of a dead generation that are not announced yet: a list.
    pub(crate) fn leaves(&self, generation: Generation) -> String {
        format!("{}leaves:{generation}", self.own_prefix)
    }

    /// The channel of all nodes.
    pub(crate) fn all_nodes(&self) -> String {
        self.channels.clone()
    }

    /// The channel of one node.
    pub(crate) fn inbox(&self, generation: Generation) -> String {
        [&self.channels, ":node:", generation.as_str()].concat()
    }

    /// The prefix of the channels of rooms.
    pub(crate) fn room_prefix(&self) -> String {
        format!("{}:room:", self.channels)
    }

    /// The channel of a room.
    pub(crate) fn room(&self, room: &str) -> String {
        format!("{}:room:{room}", self.channels)
    }

    /// The prefix of the channels of tags.
    pub(crate) fn tag_prefix(&self) -> String {
        format!("{}:tag:", self.channels)
    }

    /// The channel of a tag.
    pub(crate) fn tag(&self, tag: TagId) -> String {
        format!("{}:tag:{tag}", self.channels)
    }
}

/// The part of a member's JSON that names its generation.
pub(crate) fn generation_marker(generation: Generation) -> String {
    format!("\"generation\":\"{generation}\"")
}

/// A pattern for SCAN that matches exactly the keys with this prefix: special characters are escaped.
pub(crate) fn prefix_pattern(prefix: &str) -> String {
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
    fn keys_shared_with_actionhero_have_its_names() {
        let keys = Keys::new("actionhero:", "shop");
        assert_eq!(keys.cache("a"), "actionhero:cache:a");
        assert_eq!(keys.lock("a"), "actionhero:lock:a");
        assert_eq!(keys.rooms(), "actionhero:chatRoom:rooms");
        assert_eq!(keys.members("a"), "actionhero:chatRoom:members:a");
        assert_eq!(keys.fence("a"), "phalanx:shop:fence:a");
        assert_eq!(keys.room("a"), "shop:room:a");
        assert_eq!(keys.limit("l", "a:::1", Duration::from_secs(60)), "phalanx:shop:limit:{a:::1}:l:60000");
    }

    #[test]
    fn channels_have_the_number_of_the_database_unless_it_is_zero() {
        for (number, room, all) in [(0, "shop:room:a", "shop"), (3, "shop@3:room:a", "shop@3")] {
            let keys = Keys::new("actionhero:", "shop").in_database(number);
            assert_eq!((keys.room("a").as_str(), keys.all_nodes().as_str()), (room, all));
            assert_eq!(keys.fence("a"), "phalanx:shop:fence:a");
        }
    }

    #[test]
    fn special_characters_of_a_prefix_are_escaped() {
        assert_eq!(prefix_pattern("a*[b]?\\"), r"a\*\[b\]\?\\*");
    }
}

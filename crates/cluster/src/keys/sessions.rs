//! The names of sessions in Redis.

use super::Keys;

impl Keys {
    /// The start of the names of hashes: a session, by the hash of its id.
    pub(crate) fn sessions(&self) -> String {
        format!("{}session:", self.own_prefix)
    }

    /// The start of the names of sorted sets: the sessions of a user, by the hash of the user's name.
    pub(crate) fn sessions_of_users(&self) -> String {
        format!("{}sessions:", self.own_prefix)
    }
}

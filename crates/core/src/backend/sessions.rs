//! The seam for sessions: a value under the hash of an id, which expires, and the sessions of each user.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};

use super::error::BackendError;
use crate::id::TagId;

/// Most sessions of one user. The next one ends the one that would last the least long: the first that was signed in.
pub const MAX_SESSIONS_OF_USER: usize = 100;

/// How long the value before a renewal is left under the id before it, for requests that were on their way.
pub const FROZEN_COPY: Duration = Duration::from_secs(10);

/// The hash of a session's id. Only hashes are stored, so no reader of the store can sign in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey([u8; 32]);

/// The hash of a user's name, under which their sessions are listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey([u8; 32]);

impl SessionKey {
    /// The key of an id.
    pub fn of(id: &str) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }

    /// The key in hexadecimal digits.
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Parses what [`Self::to_hex`] wrote.
    pub fn from_hex(text: impl AsRef<[u8]>) -> Option<Self> {
        parse_hex(text.as_ref()).map(Self)
    }

    /// The key in hexadecimal digits, without the cost of a text.
    pub fn digits(self) -> [u8; 64] {
        digits(self.0)
    }

    /// The tag of its sockets. As text it is the start of [`to_hex`](Self::to_hex), so that a script that has the key knows
    /// the tag's channel.
    pub fn tag(self) -> TagId {
        TagId::parse(&self.to_hex()[..TagId::TEXT]).expect("hexadecimal digits are of the alphabet of tags")
    }
}

impl UserKey {
    /// The key of a user's name.
    pub fn of(user: &str) -> Self {
        Self(Sha256::digest(user.as_bytes()).into())
    }

    /// The key in hexadecimal digits.
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Parses what [`Self::to_hex`] wrote.
    pub fn from_hex(text: impl AsRef<[u8]>) -> Option<Self> {
        parse_hex(text.as_ref()).map(Self)
    }
}

/// The digits of a key: each read of a session names one.
fn digits(bytes: [u8; 32]) -> [u8; 64] {
    let mut digits = [0; 64];
    HEXLOWER.encode_mut(&bytes, &mut digits);
    digits
}

fn parse_hex(digits: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let is_key = digits.len() == 64 && HEXLOWER_PERMISSIVE.decode_mut(digits, &mut bytes).is_ok();
    is_key.then_some(bytes)
}

/// Enough to distinguish sessions in a log, and too little to look one up by.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..4]))
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..4]))
    }
}

/// A session, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its value.
    pub value: Bytes,
    /// The number of its last write.
    pub version: u64,
    /// Its user.
    pub user: Option<UserKey>,
    /// Unix time in milliseconds at which it ends, however much it is used.
    pub ends_at: u64,
    /// Milliseconds until it expires if it is not used.
    pub expires_in: u64,
    /// Whether its cookie outlasts the browser.
    pub is_remembered: bool,
    /// Whether it was renewed: this is the copy of the value before, and lasts for [`FROZEN_COPY`] at most.
    pub is_frozen: bool,
}

/// A session that is to be stored under a new id.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The hash of its id.
    pub key: SessionKey,
    /// Its user.
    pub user: Option<UserKey>,
    /// Its value.
    pub value: Bytes,
    /// Whether its cookie outlasts the browser.
    pub is_remembered: bool,
    /// It ends when it was not used for so long.
    pub idle: Duration,
    /// It ends after so long, however much it is used.
    pub absolute: Duration,
}

/// A session that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSession {
    /// Unix time in milliseconds at which it ends, however much it is used.
    pub ends_at: u64,
    /// The sessions that were ended for it: the oldest of a user with too many, or one that a full memory had no room for.
    pub ended: Vec<SessionKey>,
}

/// How long a use lets a session go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionUse {
    /// From now on.
    pub idle: Duration,
    /// Nothing is written before it has used so much of that.
    pub step: Duration,
}

/// A change of a session's value under its id.
#[derive(Clone, Debug)]
pub struct SessionWrite {
    /// The new value.
    pub value: Bytes,
    /// The version that it was made from; `None`: whichever is stored.
    pub expected: Option<u64>,
}

/// The outcome of a [`SessionWrite`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionWriteOutcome {
    /// It is stored, as this version.
    Written(u64),
    /// Another version is stored: this one.
    Conflict(StoredSession),
    /// There is no such session.
    Gone,
}

/// A change of a session's id.
#[derive(Clone, Debug)]
pub struct SessionRenewal {
    /// The hash of the new id.
    pub key: SessionKey,
    /// The new value and its user; `None`: as they are stored.
    pub value: Option<(Bytes, Option<UserKey>)>,
    /// The version that the value was made from; `None`: whichever is stored.
    pub expected: Option<u64>,
    /// Whether its cookie outlasts the browser; `None`: as it is stored.
    pub is_remembered: Option<bool>,
    /// It ends when it was not used for so long.
    pub idle: Duration,
    /// It ends after so long, however much it is used; `None`: when it would have ended.
    pub absolute: Option<Duration>,
}

/// The outcome of a [`SessionRenewal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRenewalOutcome {
    /// It has the new id, and whether its cookie outlasts the browser.
    Renewed(CreatedSession, bool),
    /// Another version is stored: this one.
    Conflict(StoredSession),
    /// It was renewed before: the id is that of the copy.
    Frozen,
    /// There is no such session.
    Gone,
}

/// A session in the list of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSession {
    /// The hash of its id.
    pub key: SessionKey,
    /// Unix time in milliseconds of its sign-in.
    pub created_at: u64,
    /// Unix time in milliseconds at which it ends, however much it is used.
    pub ends_at: u64,
}

/// Keeps sessions. Every method is one step. None but [`create`](Self::create) and [`renew`](Self::renew) makes a record, and
/// those make it under an id that is new: nothing brings back a session that ended.
///
/// A backend of several nodes says in the same step, to all that are subscribed to the [tag](SessionKey::tag) of a session, that
/// it ended or has a new id: [`Incoming::SessionChanged`](super::Incoming::SessionChanged). It carries no more, so a receiver
/// reads the session again, and one that is forged costs a look-up.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Reads a session. With a `using` it goes on for longer, but for a frozen copy.
    async fn read(&self, key: SessionKey, using: Option<SessionUse>) -> Result<Option<StoredSession>, BackendError>;

    /// Stores a session under a new id.
    async fn create(&self, new: NewSession) -> Result<CreatedSession, BackendError>;

    /// Replaces the value of a session that exists, and lets it last no longer. Under the id before a renewal that of the
    /// copy alone.
    async fn write(&self, key: SessionKey, write: SessionWrite) -> Result<SessionWriteOutcome, BackendError>;

    /// Gives a session that exists a new id. The value before stays under the old one, for [`FROZEN_COPY`] at most. Repeated
    /// under the same new id it changes nothing, and has the outcome of the first time, but for the sessions that were ended.
    async fn renew(&self, key: SessionKey, renewal: SessionRenewal) -> Result<SessionRenewalOutcome, BackendError>;

    /// Ends a session, and those that it was renewed to and from. Returns those that it ended; an end of none is said to other
    /// nodes as well.
    async fn end(&self, key: SessionKey) -> Result<Vec<SessionKey>, BackendError>;

    /// The sessions of a user, the one that ends first at the beginning; [`MAX_SESSIONS_OF_USER`] at most.
    async fn list(&self, user: UserKey) -> Result<Vec<ListedSession>, BackendError>;

    /// Ends all sessions of a user. Returns those that it ended.
    async fn end_all(&self, user: UserKey) -> Result<Vec<SessionKey>, BackendError>;

    /// Ends those of these sessions that are there, but for copies of renewed ones, which end soon: what they were renewed to may
    /// be a sign-in since. Returns those that it ended.
    async fn end_again(&self, keys: &[SessionKey]) -> Result<Vec<SessionKey>, BackendError>;

    /// Ends all sessions of the user of this one, but for itself; `None` if there is no such session. One without a user has
    /// no others.
    async fn end_others(&self, key: SessionKey) -> Result<Option<Vec<SessionKey>>, BackendError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_hash_of_an_id_and_shows_eight_digits_of_it() {
        let key = SessionKey::of("abc");
        assert_eq!(key.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(format!("{key:?}"), "ba7816bf");
        assert_eq!(SessionKey::from_hex(key.to_hex()), Some(key));
        assert_eq!(key.tag().to_string(), "ba7816bf8f01cfea414140de5dae2223");
        for text in ["", "ba7816bf", &"g".repeat(64), &"a".repeat(63)] {
            assert_eq!(SessionKey::from_hex(text), None, "{text}");
        }
    }
}

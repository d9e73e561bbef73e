//! Names tags of connections.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The names of tags that cannot meet: whatever an application names a tag, it is none of a user or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TagKind {
    /// The application's own.
    Application,
    /// The connections of a user.
    User,
    /// The connections of a session.
    Session,
}

/// Names a tag between nodes: a hash of its kind and its name, so that channels are of one length and show no names of
/// users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagId([u8; Self::LENGTH]);

impl TagId {
    const LENGTH: usize = 24;

    /// The number of characters of its text.
    pub const TEXT: usize = 32;

    fn of(domain: &[u8], name: &str) -> Self {
        let digest: [u8; 32] = Sha256::new().chain_update(domain).chain_update(name).finalize().into();
        let mut id = [0; Self::LENGTH];
        id.copy_from_slice(&digest[..Self::LENGTH]);
        Self(id)
    }

    /// Parses the text of one; `None` if it is of another length or alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::TEXT {
            return None;
        }
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for TagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Self::TEXT];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tag: its kind, its name, and the id that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) kind: TagKind,
    pub(crate) name: Arc<str>,
    pub(crate) id: TagId,
}

impl Tag {
    /// One that an application names.
    pub(crate) fn of_application(name: &str) -> Self {
        let id = TagId::of(b"phalanx tag 1 application\n", name);
        Self { kind: TagKind::Application, name: name.into(), id }
    }

    /// That of a user.
    pub(crate) fn of_user(name: &str) -> Self {
        Self { kind: TagKind::User, name: name.into(), id: TagId::of(b"phalanx tag 1 user\n", name) }
    }

    /// That of a session, whose hash has this id.
    pub(crate) fn of_session(id: TagId) -> Self {
        Self { kind: TagKind::Session, name: id.to_string().into(), id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_one_name_and_different_kinds_are_different_and_the_same_on_every_node() {
        let ids = [Tag::of_application("ada").id, Tag::of_user("ada").id];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[1], Tag::of_user("ada").id);
        assert_ne!(ids[1], Tag::of_user("bob").id);
        // Nodes of two releases compute it.
        assert_eq!(ids[1].to_string(), "H6rAm3nHH9A5UoUYczgtAFQwJOMB1JhT");
    }

    #[test]
    fn an_id_is_read_as_it_was_written_and_other_text_is_refused() {
        let id = Tag::of_application("staff").id;
        let text = id.to_string();
        assert_eq!((text.len(), TagId::parse(&text)), (TagId::TEXT, Some(id)));
        let long = format!("{text}A");
        for other in ["", "a", &text[1..], &long, &format!("{}=", &text[1..]), &format!("{}/", &text[1..])] {
            assert_eq!(TagId::parse(other), None, "{other}");
        }
    }
}

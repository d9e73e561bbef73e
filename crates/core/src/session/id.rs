//! The id of a session: a secret that its client alone has.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt;

use crate::backend::SessionKey;

/// 256 random bits as 43 characters of base64url. Not `Debug` with its text: it stands in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionId(String);

impl SessionId {
    const CHARACTERS: usize = 43;

    pub(super) fn random() -> Self {
        let mut random: [u8; 32] = [0; 32];
        rand::rng().fill(&mut random);
        Self(URL_SAFE_NO_PAD.encode(random))
    }

    /// The key of an id that a client sent; `None` if it cannot be one: that costs no look-up.
    pub(super) fn key_of_sent(text: &str) -> Option<SessionKey> {
        let is_id = text.len() == Self::CHARACTERS
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        is_id.then(|| SessionKey::of(text))
    }

    pub(super) fn key(&self) -> SessionKey {
        SessionKey::of(&self.0)
    }

    /// The text, for the client alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_random_and_shows_itself_nowhere() {
        let (id, other) = (SessionId::random(), SessionId::random());
        assert_ne!(id, other);
        assert_eq!(SessionId::key_of_sent(id.reveal()), Some(id.key()));
        assert_eq!(format!("{id:?}"), id.key().to_hex()[..8]);
    }

    #[test]
    fn what_cannot_be_an_id_has_no_key() {
        let id = SessionId::random();
        let id = id.reveal();
        let changed = [format!("{id}x"), id[1..].to_owned(), format!("{}=", &id[1..]), format!("{}\u{e9}", &id[2..])];
        for text in changed.iter().map(String::as_str).chain(["", "x", "../../etc/passwd"]) {
            assert_eq!(SessionId::key_of_sent(text), None, "{text}");
        }
    }
}

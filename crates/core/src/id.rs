//! Names: of a node's run, of connections and their tags, of requests, of a room between its creation and its end.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rand::RngExt;

use crate::error::{ActionError, Detail, ErrorKind};

mod tag;

pub use tag::TagId;
pub(crate) use tag::{Tag, TagKind};

/// The sender of messages that the application itself publishes to a room.
pub const SERVER_ID: &str = "0";

/// Names one run of a node in the cluster: 10 characters of base32, new at each boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation([u8; Self::LENGTH]);

impl Generation {
    /// The number of its characters.
    pub(crate) const LENGTH: usize = 10;

    /// Draws a new one.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Parses one; `None` if the text has another length or alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; Self::LENGTH] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')).then_some(Self(bytes))
    }

    /// The generation as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("drawn from an ASCII alphabet")
    }

    /// The generation as ASCII.
    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The generations of one process: the present one, and the earlier ones it still answers for.
///
/// A node takes a new generation whenever it finds itself reaped; connections made before keep their ids.
#[derive(Debug)]
pub(crate) struct Generations {
    first: Generation,
    all: RwLock<Vec<Generation>>,
}

impl Generations {
    /// Earlier generations that a node answers for; beyond, the oldest is dropped.
    const EARLIER: usize = 16;

    pub(crate) fn new() -> Self {
        let first = Generation::random();
        Self { first, all: RwLock::new(vec![first]) }
    }

    /// The first of them, which names this run of the node.
    pub(crate) fn first(&self) -> Generation {
        self.first
    }

    pub(crate) fn current(&self) -> Generation {
        *self.all().last().expect("a node always has a generation")
    }

    pub(crate) fn earlier(&self) -> Vec<Generation> {
        let all = self.all();
        all[..all.len() - 1].to_vec()
    }

    /// Whether this process is, or was, that generation.
    pub(crate) fn contains(&self, generation: Generation) -> bool {
        self.all().contains(&generation)
    }

    /// Takes a new generation, and returns the oldest one if it is dropped for it.
    pub(crate) fn renew(&self) -> Option<Generation> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Generation::random());
        (all.len() > Self::EARLIER + 1).then(|| all.remove(0))
    }

    fn all(&self) -> RwLockReadGuard<'_, Vec<Generation>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything a node is named by.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// The application's name.
    pub(crate) app: String,
    /// The application's version.
    pub(crate) version: String,
    /// The node's name for people and logs.
    pub(crate) node_id: String,
    /// The node's names in the cluster.
    pub(crate) generations: Generations,
    requests: AtomicU64,
}

impl NodeIdentity {
    pub(crate) fn new(app: String, version: String, node_id: String) -> Self {
        Self { app, version, node_id, generations: Generations::new(), requests: AtomicU64::new(0) }
    }

    /// The present generation.
    pub(crate) fn generation(&self) -> Generation {
        self.generations.current()
    }

    /// Whether the node is, or was, that generation.
    pub(crate) fn is_own(&self, generation: Generation) -> bool {
        self.generations.contains(generation)
    }

    /// A connection id that names this node as its owner.
    pub(crate) fn new_connection_id(&self) -> ConnectionId {
        ConnectionId(format!("{}-{}", self.generation(), random_text::<{ ConnectionId::RANDOM }>()).into())
    }

    /// A name for the next request.
    pub(crate) fn next_request_id(&self) -> RequestId {
        RequestId::Own(self.generation(), self.requests.fetch_add(1, Relaxed))
    }
}

/// Names one connection in the whole cluster: `<generation of its node>-<22 random characters>`. Opaque to clients.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    /// Most bytes of an id that an application gives.
    pub const MAX_BYTES: usize = 128;

    /// Random characters of an id of our own form.
    const RANDOM: usize = 22;

    /// Parses an id from outside.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is empty, longer than [`ConnectionId::MAX_BYTES`] or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX_BYTES || !printable {
            let message = "a connection id is 1 to 128 printable ASCII characters";
            return Err(ActionError::of(ErrorKind::InvalidInput, message));
        }
        Ok(Self(text.into()))
    }

    /// The generation of the node that owns it, if the id has our own form.
    pub fn owner(&self) -> Option<Generation> {
        let (generation, rest) = self.0.split_once('-')?;
        Generation::parse(generation).filter(|_| rest.len() == Self::RANDOM)
    }

    /// Whether an application must not give it: it is [`SERVER_ID`], or names a node as its owner.
    pub fn is_reserved(&self) -> bool {
        &*self.0 == SERVER_ID || self.owner().is_some()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The start of a page of a room's members. Its text is opaque: clients and authors hand it back as they got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersCursor {
    /// The step of the backend's scan in which the page starts.
    pub scan: u64,
    /// The end of that step, if members of it were listed.
    pub end: u64,
    /// The last member of that step that was listed, in the order of ids.
    pub last: Option<ConnectionId>,
}

impl fmt::Display for MembersCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => write!(f, "{}.{}.{last}", self.scan, self.end),
            None => write!(f, "{}", self.scan),
        }
    }
}

impl FromStr for MembersCursor {
    type Err = ActionError;

    /// Reads a cursor that was a `next`.
    ///
    /// # Errors
    ///
    /// `invalid_input`, about the field `after`, if it cannot have been one.
    fn from_str(text: &str) -> Result<Self, ActionError> {
        let invalid =
            || ActionError::invalid_input(vec![Detail::new("after", "format", "must be the `next` of a page")]);
        let number = |text: &str| text.parse().map_err(|_| invalid());
        let Some((scan, rest)) = text.split_once('.') else {
            return Ok(Self { scan: number(text)?, ..Self::default() });
        };
        let (end, last) = rest.split_once('.').ok_or_else(invalid)?;
        let last = ConnectionId::parse(last).map_err(|_| invalid())?;
        Ok(Self { scan: number(scan)?, end: number(end)?, last: Some(last) })
    }
}

/// Numbers a room between its creation and its destruction: rooms of one name have one incarnation after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a request: given by a trusted proxy, or `<generation>-<number>`.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestId {
    /// The id that a trusted proxy sent.
    Given(Arc<str>),
    /// The node's own.
    Own(Generation, u64),
}

impl RequestId {
    /// Lends the text of the id. Every response carries it, so it is written in place, not formatted, and not checked for
    /// UTF-8: a header takes bytes.
    pub fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        let (generation, number) = match self {
            Self::Given(name) => return take(name.as_bytes()),
            Self::Own(generation, number) => (generation.as_bytes(), *number),
        };
        let mut text = [b'-'; Generation::LENGTH + 1 + 16];
        text[..Generation::LENGTH].copy_from_slice(generation);
        let digits = number.checked_ilog2().map_or(1, |bits| bits as usize / 4 + 1);
        let text = &mut text[..Generation::LENGTH + 1 + digits];
        for (byte, digit) in text.iter_mut().rev().zip(0..digits) {
            *byte = b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize];
        }
        take(text)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_bytes(|text| f.write_str(std::str::from_utf8(text).expect("a name, or a generation and digits")))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Random text of `N` characters, five bits each.
pub(crate) fn random_text<const N: usize>() -> String {
    random_bytes::<N>().iter().map(|byte| char::from(*byte)).collect()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut random: [u8; N] = [0; N];
    rand::rng().fill(&mut random);
    random.map(|byte| ALPHABET[usize::from(byte % 32)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_by_its_node_and_its_number() {
        let generation = Generation::random();
        for number in [0, 1, 0xf, 0x10, 0xabc, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(RequestId::Own(generation, number).to_string(), format!("{generation}-{number:x}"));
        }
        assert_eq!(RequestId::Given("proxy-1".into()).to_string(), "proxy-1");
    }

    #[test]
    fn a_node_answers_for_its_last_generations_only() {
        let generations = Generations::new();
        let first = generations.current();
        for _ in 0..Generations::EARLIER {
            assert_eq!(generations.renew(), None);
        }
        assert!(generations.contains(first));
        assert_eq!(generations.renew(), Some(first));
        assert!(!generations.contains(first));
        assert_eq!(generations.earlier().len(), Generations::EARLIER);
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_other_text_is_refused() {
        for text in
            ["0", "18446744073709551615", "7.9.a", "0.0.user.name-5.5", "12.0.7ygh4vmbza-focwxi565ituudis3vwsw2"]
        {
            assert_eq!(text.parse::<MembersCursor>().unwrap().to_string(), text);
        }
        let long = format!("1.2.{}", "x".repeat(129));
        for text in ["", ".", "x", "-1", "1.", "1.2", "1.a", "1.2.", "1.2.a b", "18446744073709551616", "1.2.é", &long]
        {
            let refused = text.parse::<MembersCursor>().unwrap_err();
            assert_eq!((refused.code(), refused.details()[0].path.as_str()), ("invalid_input", "after"), "{text}");
        }
    }
}

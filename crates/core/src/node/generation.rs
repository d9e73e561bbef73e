//! Names made of chance.

use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rand::RngExt;

/// Names one run of a node in the cluster: 10 characters of base32, new at each boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation([u8; Self::LENGTH]);

impl Generation {
    /// Its characters.
    pub(crate) const LENGTH: usize = 10;

    /// Draws one.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Reads a name; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; Self::LENGTH] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')).then_some(Self(bytes))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("drawn from an ASCII alphabet")
    }

    /// The name as ASCII.
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

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Five bits a character: `N` of them name one thing among 2^(5N).
pub(super) fn random_text<const N: usize>() -> String {
    random_bytes::<N>().iter().map(|byte| char::from(*byte)).collect()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut random: [u8; N] = [0; N];
    rand::rng().fill(&mut random);
    random.map(|byte| ALPHABET[usize::from(byte % 32)])
}

/// What a node is called, and what it was called before: it is named anew whenever it finds itself reaped.
#[derive(Debug)]
pub(super) struct Names(RwLock<Vec<Generation>>);

impl Names {
    /// Earlier names that a node answers for; beyond, the oldest is given up.
    const EARLIER: usize = 16;

    pub(super) fn new() -> Self {
        Self(RwLock::new(vec![Generation::random()]))
    }

    pub(super) fn current(&self) -> Generation {
        *self.all().last().expect("a node always has a name")
    }

    pub(super) fn earlier(&self) -> Vec<Generation> {
        let all = self.all();
        all[..all.len() - 1].to_vec()
    }

    pub(super) fn contains(&self, generation: Generation) -> bool {
        self.all().contains(&generation)
    }

    /// Takes a new name, and answers the one that is given up for it.
    pub(super) fn add(&self, generation: Generation) -> Option<Generation> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(generation);
        (all.len() > Self::EARLIER + 1).then(|| all.remove(0))
    }

    fn all(&self) -> RwLockReadGuard<'_, Vec<Generation>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Names made of chance.

use std::fmt;

use rand::RngExt;

/// Names one run of a node in the cluster: 10 characters of base32, new at each boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation([u8; 10]);

impl Generation {
    /// Draws one.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("drawn from an ASCII alphabet")
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

/// Five bits a character: `N` of them name one thing among 2^(5N).
pub(super) fn random_text<const N: usize>() -> String {
    random_bytes::<N>().iter().map(|byte| char::from(*byte)).collect()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random: [u8; N] = [0; N];
    rand::rng().fill(&mut random);
    random.map(|byte| ALPHABET[usize::from(byte % 32)])
}

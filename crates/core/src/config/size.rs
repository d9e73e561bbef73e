//! Sizes in settings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The known units. The binary ones come first, largest first: a size is written in the first that divides it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
];

/// A number of bytes, written as a whole number with its unit: `64KiB`, `2MB`, `100B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `bytes` bytes.
    pub const fn b(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of `count` times 1,024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// A size of `count` times 1,024 KiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// A size of `count` times 1,024 MiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A text that is not a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no size: a size is a whole number and its unit, such as 64KiB")]
pub struct ParseByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, ParseByteSizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
        let bytes = unit.and_then(|(_, factor)| count.parse::<u64>().ok()?.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| ParseByteSizeError(text.to_owned()))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ParseByteSizeError;

    fn try_from(text: String) -> Result<Self, ParseByteSizeError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_in_a_unit_that_loses_no_byte() {
        for (text, bytes, written) in [
            ("64KiB", 65_536, "64KiB"),
            ("1024 kib", 1_048_576, "1MiB"),
            ("1500B", 1500, "1500B"),
            ("3MB", 3_000_000, "3000000B"),
            ("0B", 0, "0B"),
            ("9007199254740993B", 9_007_199_254_740_993, "9007199254740993B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.as_u64(), size.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(serde_json::from_value::<ByteSize>(written.into()).unwrap(), size);
        }
    }

    #[test]
    fn a_size_without_a_unit_or_with_a_fraction_is_refused() {
        for text in ["", "64", "64K", "KiB", "1.5MiB", "-1B", "1 parsec", "99999999TiB", "1KiB2"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ParseByteSizeError(text.to_owned())));
        }
        assert!(serde_json::from_str::<ByteSize>("1024").is_err());
    }
}

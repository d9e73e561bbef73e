//! What goes over a connection to Redis, as bytes: RESP 2, as far as publishing and hearing need it.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>
//!
//! Nothing is copied and nothing built: an answer is read item by item where it lies.

use bytes::BytesMut;

/// The longest line that begins an item. Only refusals are longer than a number, and those are a sentence.
const LONGEST_LINE: usize = 16 * 1024;

/// Appends a command of these parts, the first of which is its name.
pub(crate) fn write<'a>(out: &mut BytesMut, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    head(out, b'*', parts.len());
    for part in parts {
        head(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Without `write!`, which takes longer than all the rest of a command.
fn head(out: &mut BytesMut, kind: u8, count: usize) {
    let (mut digits, mut first, mut rest) = ([0; 20], 20, count);
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
}

/// One item of what Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Text(&'a [u8]),
    /// An error, in its words.
    Refused(&'a [u8]),
    Number(i64),
    Nil,
    /// The beginning of a list of so many items.
    List(usize),
    /// The beginning of a text that is longer than is taken; so many bytes follow, with their line end.
    TooLong(usize),
}

/// Why there is no next item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has not come yet, or not to its end.
    Incomplete,
    /// What came is not RESP.
    Malformed,
}

/// The items in what has come so far.
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
    read: usize,
    longest: usize,
}

impl<'a> Items<'a> {
    /// Takes texts of at most `longest` bytes.
    pub(crate) fn new(bytes: &'a [u8], longest: usize) -> Self {
        Self { bytes, read: 0, longest }
    }

    /// How many bytes were read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    pub(crate) fn next(&mut self) -> Result<Item<'a>, Stop> {
        let rest = &self.bytes[self.read..];
        let line = match rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
            Some(end) => rest[..end].strip_suffix(b"\r").ok_or(Stop::Malformed)?,
            None if rest.len() < LONGEST_LINE => return Err(Stop::Incomplete),
            None => return Err(Stop::Malformed),
        };
        let (kind, said) = line.split_first().ok_or(Stop::Malformed)?;
        let mut read = line.len() + 2;
        let item = match kind {
            b'+' => Item::Text(said),
            b'-' => Item::Refused(said),
            b':' => Item::Number(number(said)?),
            b'*' => count(said)?.map_or(Item::Nil, Item::List),
            b'$' => match count(said)? {
                None => Item::Nil,
                Some(length) if length > self.longest => Item::TooLong(length + 2),
                Some(length) => {
                    let (text, end) = rest[read..].split_at_checked(length).ok_or(Stop::Incomplete)?;
                    read += length + 2;
                    match end {
                        [b'\r', b'\n', ..] => Item::Text(text),
                        [] | [b'\r'] => return Err(Stop::Incomplete),
                        _ => return Err(Stop::Malformed),
                    }
                }
            },
            _ => return Err(Stop::Malformed),
        };
        self.read += read;
        Ok(item)
    }
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Stop::Malformed)
}

/// A length; -1 says that there is nothing.
fn count(digits: &[u8]) -> Result<Option<usize>, Stop> {
    match number(digits)? {
        -1 => Ok(None),
        length => u32::try_from(length).map(|length| Some(length as usize)).map_err(|_| Stop::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Item<'_>>, Stop, usize) {
        let (mut items, mut read) = (Items::new(bytes, 8), Vec::new());
        loop {
            match items.next() {
                Ok(item) => read.push(item),
                Err(stop) => return (read, stop, items.read()),
            }
        }
    }

    #[test]
    fn a_command_is_a_list_of_its_parts() {
        let mut out = BytesMut::new();
        write(&mut out, [&b"PUBLISH"[..], b"", b"\r\n\0 and more"].into_iter());
        assert_eq!(out, "*3\r\n$7\r\nPUBLISH\r\n$0\r\n\r\n$12\r\n\r\n\0 and more\r\n");
    }

    #[test]
    fn items_are_read_wherever_what_comes_is_cut() {
        let whole = b"+OK\r\n-ERR no\r\n:-12\r\n$-1\r\n*-1\r\n$0\r\n\r\n*2\r\n$8\r\n\r\n:1\r\n\0x\r\n$9\r\n";
        let expected = [
            Item::Text(b"OK"),
            Item::Refused(b"ERR no"),
            Item::Number(-12),
            Item::Nil,
            Item::Nil,
            Item::Text(b""),
            Item::List(2),
            Item::Text(b"\r\n:1\r\n\0x"),
            Item::TooLong(11),
        ];
        assert_eq!(all(whole), (expected.to_vec(), Stop::Incomplete, whole.len()));
        for cut in 0..whole.len() {
            let (items, stop, read) = all(&whole[..cut]);
            assert!(expected.starts_with(&items) && stop == Stop::Incomplete && read <= cut, "cut after {cut}");
        }
    }

    #[test]
    fn what_is_no_resp_is_said_to_be_none() {
        let line = ["+", &"x".repeat(LONGEST_LINE)].concat();
        for rubbish in
            ["HTTP/1.1 400\r\n", "\r\n", "\n", ":\r\n", ":1a\r\n", "$-2\r\n", "*9999999999\r\n", "$1\r\nabc", &line]
        {
            assert_eq!(all(rubbish.as_bytes()).1, Stop::Malformed, "{rubbish:.20}");
        }
    }
}

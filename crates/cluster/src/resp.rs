//! RESP 2, the protocol of Redis, as far as the publisher and the subscriber need it.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>
//!
//! Replies are parsed item by item in the read buffer: nothing is copied, and no tree is built.

use bytes::BytesMut;

/// The longest first line of an item. Only errors are longer than a number, and an error is a sentence.
const MAX_LINE: usize = 16 * 1024;

/// Appends a command: its name, then its arguments.
pub(crate) fn write<'a>(out: &mut BytesMut, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    start(out, parts.len());
    parts.for_each(|part| write_part(out, part));
}

/// Starts a command of so many parts, which follow.
pub(crate) fn start(out: &mut BytesMut, parts: usize) {
    head(out, b'*', parts);
}

/// Appends a part of a command.
pub(crate) fn write_part(out: &mut BytesMut, part: &[u8]) {
    head(out, b'$', part.len());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

fn head(out: &mut BytesMut, kind: u8, count: usize) {
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(decimal(count as u64, &mut [0; MAX_DIGITS]));
    out.extend_from_slice(b"\r\n");
}

/// The digits of the largest number.
pub(crate) const MAX_DIGITS: usize = 20;

/// Formats a number. By hand: `write!` takes longer than the rest of a command.
pub(crate) fn decimal(number: u64, digits: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let (mut first, mut rest) = (MAX_DIGITS, number);
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[first..];
        }
    }
}

/// One item of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RespItem<'a> {
    Text(&'a [u8]),
    /// An error, with Redis's message.
    Error(&'a [u8]),
    Number(i64),
    Nil,
    /// The start of a list of this many items.
    List(usize),
    /// The start of a text that exceeds the limit; this many bytes follow, including the line end.
    TooLong(usize),
}

/// Why no item could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RespError {
    /// It has not been received yet, or not completely.
    Incomplete,
    /// The bytes are not RESP.
    Malformed,
}

/// Reads the items in the bytes that were received so far.
pub(crate) struct RespItems<'a> {
    bytes: &'a [u8],
    read: usize,
    max_text: usize,
}

impl<'a> RespItems<'a> {
    /// Texts of more than `max_text` bytes are reported as [`RespItem::TooLong`].
    pub(crate) fn new(bytes: &'a [u8], max_text: usize) -> Self {
        Self { bytes, read: 0, max_text }
    }

    /// The number of bytes that were read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    pub(crate) fn next(&mut self) -> Result<RespItem<'a>, RespError> {
        let rest = &self.bytes[self.read..];
        let line = match rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
            Some(end) => rest[..end].strip_suffix(b"\r").ok_or(RespError::Malformed)?,
            None if rest.len() < MAX_LINE => return Err(RespError::Incomplete),
            None => return Err(RespError::Malformed),
        };
        let (kind, rest_of_line) = line.split_first().ok_or(RespError::Malformed)?;
        let mut read = line.len() + 2;
        let item = match kind {
            b'+' => RespItem::Text(rest_of_line),
            b'-' => RespItem::Error(rest_of_line),
            b':' => RespItem::Number(number(rest_of_line)?),
            b'*' => count(rest_of_line)?.map_or(RespItem::Nil, RespItem::List),
            b'$' => match count(rest_of_line)? {
                None => RespItem::Nil,
                Some(length) if length > self.max_text => RespItem::TooLong(length + 2),
                Some(length) => {
                    let (text, end) = rest[read..].split_at_checked(length).ok_or(RespError::Incomplete)?;
                    read += length + 2;
                    match end {
                        [b'\r', b'\n', ..] => RespItem::Text(text),
                        [] | [b'\r'] => return Err(RespError::Incomplete),
                        _ => return Err(RespError::Malformed),
                    }
                }
            },
            _ => return Err(RespError::Malformed),
        };
        self.read += read;
        Ok(item)
    }
}

fn number(digits: &[u8]) -> Result<i64, RespError> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(RespError::Malformed)
}

/// A length; -1 stands for nil.
fn count(digits: &[u8]) -> Result<Option<usize>, RespError> {
    match number(digits)? {
        -1 => Ok(None),
        length => u32::try_from(length).map(|length| Some(length as usize)).map_err(|_| RespError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> (Vec<RespItem<'_>>, RespError, usize) {
        let (mut items, mut read) = (RespItems::new(bytes, 8), Vec::new());
        loop {
            match items.next() {
                Ok(item) => read.push(item),
                Err(error) => return (read, error, items.read()),
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
    fn items_are_read_wherever_the_input_is_split() {
        let whole = b"+OK\r\n-ERR no\r\n:-12\r\n$-1\r\n*-1\r\n$0\r\n\r\n*2\r\n$8\r\n\r\n:1\r\n\0x\r\n$9\r\n";
        let expected = [
            RespItem::Text(b"OK"),
            RespItem::Error(b"ERR no"),
            RespItem::Number(-12),
            RespItem::Nil,
            RespItem::Nil,
            RespItem::Text(b""),
            RespItem::List(2),
            RespItem::Text(b"\r\n:1\r\n\0x"),
            RespItem::TooLong(11),
        ];
        assert_eq!(all(whole), (expected.to_vec(), RespError::Incomplete, whole.len()));
        for cut in 0..whole.len() {
            let (items, error, read) = all(&whole[..cut]);
            assert!(expected.starts_with(&items) && error == RespError::Incomplete && read <= cut, "cut after {cut}");
        }
    }

    #[test]
    fn input_that_is_not_resp_is_malformed() {
        let line = ["+", &"x".repeat(MAX_LINE)].concat();
        for rubbish in
            ["HTTP/1.1 400\r\n", "\r\n", "\n", ":\r\n", ":1a\r\n", "$-2\r\n", "*9999999999\r\n", "$1\r\nabc", &line]
        {
            assert_eq!(all(rubbish.as_bytes()).1, RespError::Malformed, "{rubbish:.20}");
        }
    }
}

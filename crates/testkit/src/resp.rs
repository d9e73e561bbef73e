//! The length of a value of RESP, which is all that a proxy needs to know of the protocol.

/// Returns the length of the first value in `bytes` once it is complete. Handles both versions of the protocol.
///
/// Bytes that are not a value count as one byte each: a proxy forwards them, and the receiver reports the error.
pub(crate) fn value_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let count = || std::str::from_utf8(&bytes[1..line]).ok().and_then(|text| text.trim_end().parse::<i64>().ok());
    let items = match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return Some(line),
        b'$' | b'=' | b'!' => {
            let Ok(len) = usize::try_from(count().unwrap_or(-1)) else { return Some(line) };
            return (bytes.len() >= line + len + 2).then_some(line + len + 2);
        }
        b'*' | b'~' | b'>' => count().unwrap_or(0),
        b'%' | b'|' => count().unwrap_or(0) * 2,
        _ => return Some(1),
    };
    let mut len = line;
    for _ in 0..items {
        len += value_len(bytes.get(len..).filter(|rest| !rest.is_empty())?)?;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::value_len;

    #[test]
    fn a_complete_value_has_a_length_and_an_incomplete_one_has_none() {
        for value in [
            "+OK\r\n",
            ":12\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "$5\r\na\r\nbc\r\n",
            "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
            ">2\r\n+a\r\n*1\r\n:1\r\n",
            "%1\r\n+key\r\n,1.5\r\n",
            "*0\r\n",
        ] {
            let more = format!("{value}+OK\r\n");
            assert_eq!(value_len(more.as_bytes()), Some(value.len()), "{value:?}");
            for part in 0..value.len() {
                assert_eq!(value_len(&value.as_bytes()[..part]), None, "{part} bytes of {value:?}");
            }
        }
        assert_eq!(value_len(b"rubbish\r\n"), Some(1));
    }
}

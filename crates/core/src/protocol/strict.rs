//! The JSON of a client that others will read: what every strict reader accepts, in one pass and without a tree.
//!
//! The grammar of JSON admits more than most readers do: half a surrogate pair, which no string of Unicode holds, and
//! numbers beyond a double. A message with one of those would make the whole frame unreadable for its recipients.

use crate::error::{ActionError, Detail, ErrorKind};

/// The maximum nesting: deeper JSON could overflow the parser of the client that receives it.
const MAX_DEPTH: u32 = 100;

/// A double holds a number with so many characters before its exponent, since the largest double has 309 digits, ...
const MAX_PLAIN: usize = 200;

/// ... also with an exponent of so many characters, such as `e99`.
const SMALL_EXPONENT: usize = 3;

/// The bytes of a string that are looked at together.
const STEP: usize = 16;

/// The reason for which others may not be able to read a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// It nests deeper than 100 levels.
    Depth,
    /// A string has half a surrogate pair.
    Surrogate,
    /// A number is too large for a double.
    Number,
}

impl JsonFault {
    /// The error for the client, about one of its fields. What an HTTP body may not have is `malformed` here too.
    pub fn error(self, field: &'static str) -> ActionError {
        let what = match self {
            Self::Depth => {
                let detail = Detail::new(field, "depth", "must not nest deeper than 100 levels");
                return ActionError::invalid_input(vec![detail]);
            }
            Self::Surrogate => "a string with half a surrogate pair",
            Self::Number => "a number that is out of range",
        };
        ActionError::of(ErrorKind::Malformed, format!("`{field}` has {what}"))
    }
}

/// The meaning of a byte outside of strings, and whether it ends a run of plain bytes within one.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Other,
    Quote,
    Open,
    Close,
    /// A digit, the sign or the point of a number.
    Number,
    Backslash,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    classes[b'"' as usize] = Class::Quote;
    classes[b'{' as usize] = Class::Open;
    classes[b'[' as usize] = Class::Open;
    classes[b'}' as usize] = Class::Close;
    classes[b']' as usize] = Class::Close;
    classes[b'\\' as usize] = Class::Backslash;
    classes[b'-' as usize] = Class::Number;
    classes[b'.' as usize] = Class::Number;
    let mut digit = b'0';
    while digit <= b'9' {
        classes[digit as usize] = Class::Number;
        digit += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// Checks a text that is known to be JSON. Text that is not gets any result, but no panic.
///
/// # Errors
///
/// The first fault.
pub fn check_json(json: &str) -> Result<(), JsonFault> {
    let bytes = json.as_bytes();
    // So few bytes, as most ids have, are at fault only by an escape or an exponent.
    if bytes.len() <= STEP && !bytes.iter().any(|byte| matches!(byte, b'\\' | b'e' | b'E')) {
        return Ok(());
    }
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match class(byte) {
            Class::Other | Class::Backslash => {}
            Class::Quote => at = end_of_string(bytes, at)?,
            Class::Open => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(JsonFault::Depth);
                }
            }
            Class::Close => depth = depth.saturating_sub(1),
            Class::Number => {
                let start = at - 1;
                while bytes.get(at).is_some_and(|byte| class(*byte) == Class::Number) {
                    at += 1;
                }
                if at - start > MAX_PLAIN || matches!(bytes.get(at), Some(b'e' | b'E')) {
                    at = end_of_number(json, start, at)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the position after the closing quote of the string that starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, JsonFault> {
    let is_end = |byte: &u8| (*byte == b'"') | (*byte == b'\\');
    loop {
        // Byte by byte, which suits names; a string that is longer is looked at in steps, which compile to SIMD.
        let near = at + STEP;
        while at < near && bytes.get(at).is_some_and(|byte| !is_end(byte)) {
            at += 1;
        }
        if at == near {
            while let Some(step) = bytes.get(at..at + STEP)
                && !step.iter().fold(false, |found, byte| found | is_end(byte))
            {
                at += STEP;
            }
            continue;
        }
        at += 1;
        match bytes.get(at - 1) {
            Some(b'\\') => at = end_of_escape(bytes, at)?,
            _ => return Ok(at.min(bytes.len())),
        }
    }
}

/// Returns the position after the escape whose backslash is before `at`, or after both escapes of a surrogate pair.
fn end_of_escape(bytes: &[u8], at: usize) -> Result<usize, JsonFault> {
    match code_unit(bytes, at) {
        None => Ok(at + 1),
        Some(0xD800..=0xDBFF) => match code_unit(bytes, at + 6) {
            Some(0xDC00..=0xDFFF) if bytes[at + 5] == b'\\' => Ok(at + 11),
            _ => Err(JsonFault::Surrogate),
        },
        Some(0xDC00..=0xDFFF) => Err(JsonFault::Surrogate),
        Some(_) => Ok(at + 5),
    }
}

/// Reads `u` and four hexadecimal digits.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let [b'u', digits @ ..] = bytes.get(at..at + 5)? else { return None };
    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// Returns the position after a number that has an exponent at `exponent`, or is very long.
fn end_of_number(json: &str, start: usize, exponent: usize) -> Result<usize, JsonFault> {
    let is_part = |byte: &u8| class(*byte) == Class::Number || matches!(byte, b'e' | b'E' | b'+');
    let rest = &json.as_bytes()[exponent..];
    let end = exponent + rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    let is_small = exponent - start <= MAX_PLAIN && end - exponent <= SMALL_EXPONENT;
    if is_small || json[start..end].parse::<f64>().is_ok_and(f64::is_finite) { Ok(end) } else { Err(JsonFault::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_passes_exactly_if_a_strict_reader_accepts_it() {
        let long = |digits: usize| format!("1{}", "0".repeat(digits));
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let filled = |text: &str| format!("\"{}{text}\"", "x".repeat(37));
        let samples = [
            "1",
            "false",
            "null",
            "\"\"",
            "\"[[[[\"",
            r#""\"[""#,
            r#""\\""#,
            r#""\\\"""#,
            r#"{"deep":[1]}"#,
            "[]",
            r#""\ud83d""#,
            r#""\uD83D\ude00""#,
            r#""\ude00""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83dude00""#,
            r#""\ud83d\n""#,
            r#""\\ud83d""#,
            r#""\\\ud83d""#,
            r#""\u0000""#,
            r#""\ud7ff\ue000""#,
            r#"{"\ud83d":1}"#,
            r#"[1,{"a":"\udfff"}]"#,
            "\"\u{1f600}\"",
            "1e308",
            "1e309",
            "1E+400",
            "-1e400",
            "1e-400",
            "0e999",
            "0.0e5",
            "[1.5,2e3]",
            "[1e400]",
            r#"{"a":-1.7976931348623157e308}"#,
            "123456789012345678901234",
            r#"{"1e999":"1e999"}"#,
            r#"["\\",1e999]"#,
            r#"["1e999",2]"#,
        ]
        .map(str::to_owned);
        let made = [
            long(299),
            long(300),
            long(308),
            long(309),
            long(400),
            format!("-{}", long(400)),
            nested(100),
            format!("0.{}1", "0".repeat(400)),
            filled(r"\ud83d"),
            filled(r"\ud83d\ude00"),
            filled("é"),
        ];
        for text in samples.into_iter().chain(made) {
            let strict = serde_json::from_str::<serde_json::Value>(&text);
            assert_eq!(check_json(&text).is_ok(), strict.is_ok(), "{text}: {strict:?}");
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok(), "{text} is JSON");
        }
        for (text, fault) in [
            (nested(101), JsonFault::Depth),
            (format!("{}{}", "{\"a\":".repeat(30_000), "}".repeat(30_000)), JsonFault::Depth),
            (r#"["\ud83d"]"#.to_owned(), JsonFault::Surrogate),
            ("[1e400]".to_owned(), JsonFault::Number),
        ] {
            assert_eq!(check_json(&text), Err(fault));
        }
        assert_eq!(JsonFault::Depth.error("message").kind(), ErrorKind::InvalidInput);
        assert_eq!(JsonFault::Number.error("message").kind(), ErrorKind::Malformed);
    }

    #[test]
    fn text_that_is_not_json_does_not_panic() {
        let text = r#"{"a":"\ud83d\ude00\u00e9é","b":[-1.5e+3]}"#;
        for (start, _) in text.char_indices() {
            for (end, _) in text[start..].char_indices() {
                let _ = check_json(&text[start..start + end]);
            }
        }
    }
}

//! The headers of a multipart body: its boundary, and the name and file name of each part.

use std::borrow::Cow;

use http::header::{CONTENT_DISPOSITION, HeaderMap};
use percent_encoding::percent_decode_str;
use phalanx_core::ActionError;

use super::malformed;

/// The name of a part, and the name of its file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    /// `None` if the part names none; such a part is skipped.
    pub(super) name: Option<String>,
    /// `None` for a field without a file.
    pub(super) file_name: Option<String>,
}

impl Disposition {
    /// Reads `Content-Disposition` by RFC 2183, 6266 and 8187. `filename` wins over `filename*`, which RFC 7578 forbids
    /// in forms.
    ///
    /// # Errors
    ///
    /// The header is longer than any client sends it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ActionError> {
        let Some(value) = headers.get(CONTENT_DISPOSITION) else { return Ok(Self::default()) };
        if !is_parseable(value.as_bytes()) {
            return Err(malformed("the Content-Disposition of a part is too long"));
        }
        let mut params = mailparse::parse_content_disposition(&keep_backslashes(&text_of(value.as_bytes()))).params;
        let mut take = |name: &str| {
            let extended = format!("{name}*");
            params.remove(name).or_else(|| Some(decoded(&params.remove(&extended)?)))
        };
        Ok(Self { name: take("name"), file_name: take("filename") })
    }
}

/// The longest header that is parsed, and the most asterisks in it. mailparse takes a time that grows with the square of
/// the number of continued parameters (`name*0*=a`): seconds for 100 KB of them.
const MAX_LENGTH: usize = 4096;
const MAX_ASTERISKS: usize = 64;

/// Whether a header costs little to parse.
fn is_parseable(value: &[u8]) -> bool {
    value.len() <= MAX_LENGTH && value.iter().filter(|byte| **byte == b'*').count() <= MAX_ASTERISKS
}

/// Reads the boundary of a `Content-Type`; `None` if it names none, or is longer than any client sends it.
pub(super) fn boundary_of(content_type: &str) -> Option<String> {
    if !is_parseable(content_type.as_bytes()) {
        return None;
    }
    let boundary = mailparse::parse_content_type(content_type).params.remove("boundary");
    boundary.filter(|boundary| !boundary.is_empty())
}

/// Reads a header as UTF-8, or else as Latin-1.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().copied().map(char::from).collect::<String>().into(),
    }
}

/// Doubles each backslash that escapes neither a quote nor a backslash: some browsers send `"C:\dir\a.txt"`, which RFC
/// 2183 reads as `C:dira.txt`.
fn keep_backslashes(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let (mut kept, mut is_quoted) = (String::with_capacity(text.len() + 8), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        kept.push(character);
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => match characters.next_if(|next| matches!(next, '"' | '\\')) {
                Some(escaped) => kept.push(escaped),
                None => kept.push('\\'),
            },
            _ => {}
        }
    }
    kept.into()
}

/// Decodes an extended value whose charset mailparse does not know; a value without a charset is returned as it is.
fn decoded(value: &str) -> String {
    let Some(encoded) = value.splitn(3, '\'').nth(2) else { return value.to_owned() };
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    text_of(&bytes).into_owned()
}

#[cfg(test)]
mod tests;

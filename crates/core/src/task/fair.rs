//! The key by which a job takes turns with others of its queue.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::job::{MAX_TURN_BYTES, is_turn_byte};

/// The key of a job, by a field of its input: the text, or the JSON, of its value. One of other characters, or a long one, is
/// replaced by its digest. `None` for a job without a value, which takes its turn with those of no key.
pub(super) fn turn_key(field: &str, input: &RawValue) -> Option<String> {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(input.get()).ok()?;
    let json = fields.get(field)?.get();
    let text = serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    if json == "null" || text.is_empty() {
        return None;
    }
    let is_key = text.len() <= MAX_TURN_BYTES && text.bytes().all(is_turn_byte);
    Some(if is_key { text } else { HEXLOWER.encode(&Sha256::digest(&text)[..16]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_value_of_a_field_or_its_digest() {
        let long = format!(r#"{{"tenant":"{}"}}"#, "x".repeat(MAX_TURN_BYTES + 1));
        for (input, expected) in [
            (r#"{"tenant":"acme-1","n":2}"#, Some("acme-1")),
            (r#"{"tenant":17}"#, Some("17")),
            (r#"{"ten\u0061nt":true}"#, Some("true")),
            (r#"{"tenant":"\u0061b"}"#, Some("ab")),
            (r#"{"tenant":"null"}"#, Some("null")),
            (r#"{"tenant":"a b"}"#, Some("c8687a08aa5d6ed2044328fa6a697ab8")),
            (r#"{"tenant":"a\",\"fair\":\"b"}"#, Some("661f990e1dc5c81de80e3ed8758c7764")),
            (r#"{"tenant":"é"}"#, Some("4a99557e4033c3539de2eb65472017ca")),
            (&long, Some("9537c5fdf120482f7d58d25e9ed583f5")),
            (r#"{"tenant":null}"#, None),
            (r#"{"tenant":""}"#, None),
            (r#"{"other":{"tenant":"a"}}"#, None),
            ("{}", None),
            ("null", None),
        ] {
            let input: &RawValue = serde_json::from_str(input).unwrap();
            assert_eq!(turn_key("tenant", input).as_deref(), expected, "{input}");
        }
    }
}

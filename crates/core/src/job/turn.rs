//! The key in a job's text by which it takes turns with others of its queue.

/// Most bytes of a key by which jobs take turns.
pub const MAX_TURN_BYTES: usize = 64;

/// The bytes at the end of a text among which its key is looked for: the longest key, and the name of a batch.
const TURN_TAIL: usize = 500;

/// The key by which a job takes turns with others of its queue, from the end of its text: no script of a store reads JSON. That is
/// the last field of the object, or the last but one of a member of a batch. Nothing else in an object looks like it: a text that
/// contains the same is escaped, and what is deeper in it is followed by more than a brace.
pub fn turn_of(text: &[u8]) -> Option<&str> {
    let text = &text[text.len().saturating_sub(TURN_TAIL)..];
    let (before, last) = last_value(text.strip_suffix(b"\"}")?)?;
    let (before, key) = match before.strip_suffix(b"\",\"batch\":\"") {
        Some(others) => last_value(others)?,
        None => (before, last),
    };
    let is_key = (1..=MAX_TURN_BYTES).contains(&key.len()) && key.iter().all(|byte| is_turn_byte(*byte));
    std::str::from_utf8(key).ok().filter(|_| is_key && before.ends_with(b",\"fair\":\""))
}

/// The text behind the last quote, and all before it.
fn last_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b'"')? + 1;
    Some(text.split_at(at))
}

/// Whether a key by which jobs take turns may have this character.
pub(crate) fn is_turn_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":._-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobText;

    #[test]
    fn the_key_of_a_turn_is_the_last_field_of_a_text() {
        let written = JobText { class: "a".into(), fair: Some("tenant-1".into()), ..JobText::default() };
        assert_eq!(turn_of(&written.write()), Some("tenant-1"));
        for (text, expected) in [
            (r#"{"class":"a","fair":"x"}"#, Some("x")),
            (r#"{"class":"a","fair":"x","batch":"b#1"}"#, Some("x")),
            (r#"{"class":"a","fair":"x","batch":"b\"x#1"}"#, None),
            (r#"{"class":"a","args":[{"fair":"x"}],"batch":"b#1"}"#, None),
            (r#"{"class":"a","fair":"x","id":"y"}"#, None),
            (r#"{"class":"a","args":[{"b":1,"fair":"x"}]}"#, None),
            (r#"{"class":"a","note":",\"fair\":\"x"}"#, None),
            (r#"{"class":"a","fair":"x y"}"#, None),
            (r#"{"class":"a","fair":""}"#, None),
            (r#"{"class":"a","fair":7}"#, None),
            ("\"}", None),
            ("", None),
        ] {
            assert_eq!(turn_of(text.as_bytes()), expected, "{text}");
        }
        let long = format!(r#"{{"class":"a","fair":"{}"}}"#, "x".repeat(MAX_TURN_BYTES + 1));
        assert_eq!(turn_of(long.as_bytes()), None);
    }
}

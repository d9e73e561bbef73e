//! The frames of a socket, and which of them a test has looked at.

use std::collections::VecDeque;
use std::fmt;

use serde_json::Value;

/// Most frames that are kept; beyond, the oldest goes.
const MOST: usize = 10_000;

/// Most characters of a frame that a failure prints.
const PRINTED: usize = 2000;

/// The frames of a socket in both directions, in order.
#[derive(Debug, Default)]
pub(super) struct FrameLog {
    frames: VecDeque<LoggedFrame>,
    /// Received frames that are kept no more, and that no one has taken.
    lost: u64,
    dropped: u64,
    /// The close code, once the socket has ended.
    pub(super) closed: Option<u16>,
}

#[derive(Debug)]
struct LoggedFrame {
    is_sent: bool,
    /// Whether it was expected, or is the reply to a request.
    is_taken: bool,
    text: String,
    value: Value,
}

impl FrameLog {
    pub(super) fn add_sent(&mut self, text: &str) {
        self.add(LoggedFrame { is_sent: true, is_taken: true, text: text.to_owned(), value: Value::Null });
    }

    pub(super) fn add_received(&mut self, text: &str) {
        let value = serde_json::from_str(text).unwrap_or(Value::Null);
        self.add(LoggedFrame { is_sent: false, is_taken: false, text: text.to_owned(), value });
    }

    fn add(&mut self, frame: LoggedFrame) {
        if self.frames.len() == MOST {
            let dropped = self.frames.pop_front();
            self.dropped += 1;
            self.lost += u64::from(dropped.is_some_and(|dropped| !dropped.is_taken));
        }
        self.frames.push_back(frame);
    }

    /// Takes the first frame that matches.
    pub(super) fn take(&mut self, pattern: &Value) -> Option<Value> {
        let frame = self.frames.iter_mut().find(|frame| !frame.is_taken && matches(pattern, &frame.value))?;
        frame.is_taken = true;
        Some(frame.value.clone())
    }

    /// Whether a frame matches that was not taken; also if one may have that is kept no more.
    pub(super) fn has(&self, pattern: &Value) -> bool {
        self.lost > 0 || self.frames.iter().any(|frame| !frame.is_taken && matches(pattern, &frame.value))
    }
}

/// Each frame on a line of its own.
impl fmt::Display for FrameLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "  … {} earlier frames, of which {} were not expected", self.dropped, self.lost)?;
        }
        for frame in &self.frames {
            let mark = match (frame.is_sent, frame.is_taken) {
                (true, _) => ">",
                (false, true) => "<",
                (false, false) => "< (new)",
            };
            let text: String = frame.text.chars().take(PRINTED).collect();
            let rest = if text.len() < frame.text.len() { " …" } else { "" };
            writeln!(f, "  {mark} {text}{rest}")?;
        }
        match (self.closed, self.frames.is_empty()) {
            (Some(code), _) => write!(f, "  closed with {code}"),
            (None, true) => write!(f, "  none"),
            (None, false) => write!(f, "  the socket is open"),
        }
    }
}

/// Whether a value has all that the pattern has: of an object these fields, of a list as many items, each of which matches;
/// anything else is equal.
pub(super) fn matches(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::Object(pattern), Value::Object(value)) => {
            let mut fields = pattern.iter();
            fields.all(|(name, pattern)| value.get(name).is_some_and(|value| matches(pattern, value)))
        }
        (Value::Array(pattern), Value::Array(value)) => {
            pattern.len() == value.len() && pattern.iter().zip(value).all(|(pattern, value)| matches(pattern, value))
        }
        _ => pattern == value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_matches_by_its_own_fields() {
        let frame =
            json!({ "message": { "name": "Ada", "text": "hi" }, "room": "lobby", "list": [{ "a": 1, "b": 2 }, 3] });
        for (pattern, is_match) in [
            (json!({}), true),
            (json!({ "room": "lobby" }), true),
            (json!({ "message": { "text": "hi" } }), true),
            (json!({ "list": [{ "a": 1 }, 3] }), true),
            (json!({ "list": [{ "a": 1 }] }), false),
            (json!({ "room": null }), false),
            (json!({ "missing": null }), false),
            (json!({ "message": "hi" }), false),
        ] {
            assert_eq!(matches(&pattern, &frame), is_match, "{pattern}");
        }
    }

    #[test]
    fn a_frame_is_taken_once_and_a_dropped_one_counts_as_anything() {
        let mut log = FrameLog::default();
        log.add_sent(r#"{"n":1}"#);
        log.add_received(r#"{"n":1}"#);
        log.add_received(r#"{"n":1,"last":true}"#);
        assert_eq!(log.take(&json!({ "n": 1 })), Some(json!({ "n": 1 })));
        assert!(log.has(&json!({ "n": 1 })) && !log.has(&json!({ "n": 2 })));
        assert_eq!(log.take(&json!({ "n": 1 })), Some(json!({ "n": 1, "last": true })));
        assert_eq!(log.take(&json!({ "n": 1 })), None);
        assert_eq!(log.to_string(), "  > {\"n\":1}\n  < {\"n\":1}\n  < {\"n\":1,\"last\":true}\n  the socket is open");
        for number in 0..MOST {
            log.add_received(&format!(r#"{{"many":{number}}}"#));
        }
        assert!(!log.has(&json!({ "n": 2 })), "those that went were taken");
        log.add_received("{}");
        assert!(log.has(&json!({ "n": 2 })), "one went that was not");
    }
}

//! The value of a session as JSON, with the fields that another version of the application gave it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::data::SessionData;
use crate::config::SessionSettings;
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// The value as it is stored.
pub(super) fn encode<T: SessionData>(value: &T) -> Result<Bytes, ActionError> {
    bounded(serde_json::to_vec(value).map_err(ActionError::internal)?)
}

pub(super) fn decode<T: SessionData>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
}

/// The value as it is stored in place of another one, with the fields of that one that `T` does not know: nodes of the next
/// release may have written them, and would miss them.
pub(super) fn encode_over<T: SessionData>(before: &[u8], old: &T, value: &T) -> Result<Bytes, ActionError> {
    let encoded = encode(value)?;
    let (Ok(stored), Ok(Value::Object(known)), Ok(Value::Object(mut written))) = (
        serde_json::from_slice::<Map<String, Value>>(before),
        serde_json::to_value(old),
        serde_json::from_slice::<Value>(&encoded),
    ) else {
        return Ok(encoded);
    };
    let unknown: Vec<_> = stored.into_iter().filter(|(name, _)| !known.contains_key(name)).collect();
    if unknown.is_empty() {
        return Ok(encoded);
    }
    let names = names_read_by::<T>(&written);
    let all = merged(&written, unknown.iter().cloned());
    if names_read_by::<T>(&all) == names {
        written = all;
    } else {
        for field in unknown {
            let more = merged(&written, [field]);
            if names_read_by::<T>(&more) == names {
                written = more;
            }
        }
    }
    bounded(serde_json::to_vec(&written).map_err(ActionError::internal)?)
}

fn merged(written: &Map<String, Value>, fields: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut merged = written.clone();
    for (name, field) in fields {
        merged.entry(name).or_insert(field);
    }
    merged
}

/// The names of the fields that a value has once `T` has read it; `None` if it does not decode. A field that `T` knows by a
/// second name (`alias`) changes them: it doubles another one, or fills in one that was left out.
fn names_read_by<T: SessionData>(value: &Map<String, Value>) -> Option<BTreeSet<String>> {
    let read: T = decode(&serde_json::to_vec(value).ok()?).ok()?;
    match serde_json::to_value(read).ok()? {
        Value::Object(fields) => Some(fields.into_iter().map(|(name, _)| name).collect()),
        _ => None,
    }
}

fn bounded(encoded: Vec<u8>) -> Result<Bytes, ActionError> {
    if encoded.len() > SessionSettings::MAX_VALUE_BYTES {
        bound_reached("session.value");
        super::metrics::record_refusal("too_large");
        let message = format!("the value of a session has {} bytes at most", SessionSettings::MAX_VALUE_BYTES);
        return Err(ActionError::new(ErrorKind::PayloadTooLarge, "session_too_large", message));
    }
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Account {
        #[serde(alias = "login")]
        user: String,
        #[serde(default, alias = "nickname", skip_serializing_if = "Option::is_none")]
        nick: Option<String>,
    }

    impl SessionData for Account {
        fn user(&self) -> Option<&str> {
            Some(&self.user)
        }
    }

    fn account(user: &str, nick: Option<&str>) -> Account {
        Account { user: user.to_owned(), nick: nick.map(str::to_owned) }
    }

    #[test]
    fn fields_of_another_version_are_kept_and_own_ones_replaced() {
        let check = |before: Value, value: Account, expected: Value| {
            let before = before.to_string();
            let old: Account = decode(before.as_bytes()).unwrap();
            let encoded = encode_over(before.as_bytes(), &old, &value).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&encoded).unwrap(), expected);
        };
        check(json!({"user": "ada"}), account("bob", None), json!({"user": "bob"}));
        check(
            json!({"user": "ada", "theme": {"dark": true}}),
            account("bob", Some("b")),
            json!({"user": "bob", "nick": "b", "theme": {"dark": true}}),
        );
        check(json!({"user": "ada", "nick": "a"}), account("ada", None), json!({"user": "ada"}));
        check(json!({"login": "ada"}), account("bob", None), json!({"user": "bob"}));
        check(
            json!({"login": "ada", "theme": "dark", "nickname": "a"}),
            account("bob", None),
            json!({"user": "bob", "theme": "dark"}),
        );
    }

    #[test]
    fn a_value_is_bounded() {
        let most = SessionSettings::MAX_VALUE_BYTES - json!({"user": ""}).to_string().len();
        assert!(encode(&account(&"x".repeat(most), None)).is_ok());
        assert_eq!(encode(&account(&"x".repeat(most + 1), None)).unwrap_err().code(), "session_too_large");
    }
}

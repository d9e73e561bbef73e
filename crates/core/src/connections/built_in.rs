//! The methods that every connection has.

use serde_json::{Map, Value};

use crate::connection::CloseReason;
use crate::error::{ActionError, Detail};

/// A call of a method that every connection has, read.
#[derive(Clone, Debug, PartialEq)]
pub enum BuiltIn {
    /// Answers what is known of the connection.
    Details,
    /// Answers an attribute.
    Get(String),
    /// Notes an attribute.
    Set(String, Value),
    /// Sends the client a message.
    SendMessage(Map<String, Value>),
    /// Sends the client a file of the public folders.
    SendFile(String),
    /// Joins a room.
    RoomAdd(String),
    /// Leaves a room.
    RoomLeave(String),
    /// Closes the connection, with a code of the application's if it says one.
    Destroy(CloseReason),
}

impl BuiltIn {
    /// Their names.
    pub(crate) const NAMES: [&str; 8] =
        ["details", "set", "get", "sendMessage", "sendFile", "roomAdd", "roomLeave", "destroy"];

    /// Reads a call; gives the arguments back of a method that is none of these.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the arguments are not what the method takes.
    pub(crate) fn read(method: &str, args: Value) -> Result<Result<Self, Value>, ActionError> {
        Ok(Ok(match method {
            "" | "details" => Self::Details,
            "get" => Self::Get(one_text(args, "key")?),
            "set" => {
                let (key, value) = key_and_value(args)?;
                Self::Set(key, value)
            }
            "sendMessage" => Self::SendMessage(message(args)),
            "sendFile" => Self::SendFile(one_text(args, "file")?),
            "roomAdd" => Self::RoomAdd(one_text(args, "room")?),
            "roomLeave" => Self::RoomLeave(one_text(args, "room")?),
            "destroy" => Self::Destroy(reason(args)?),
            _ => return Ok(Err(args)),
        }))
    }
}

/// A message for one client: an object says its own context, everything else travels as `message`.
fn message(args: Value) -> Map<String, Value> {
    let mut object = match args {
        Value::Object(object) => object,
        Value::Array(mut list) if list.len() == 1 && list[0].is_object() => match list.remove(0) {
            Value::Object(object) => object,
            other => Map::from_iter([("message".to_owned(), other)]),
        },
        other => Map::from_iter([("message".to_owned(), other)]),
    };
    object.entry("context").or_insert_with(|| "response".into());
    object
}

/// `"lobby"` or `["lobby"]`.
fn one_text(args: Value, name: &str) -> Result<String, ActionError> {
    match args {
        Value::String(text) => Ok(text),
        Value::Array(mut list) if list.len() == 1 && list[0].is_string() => match list.remove(0) {
            Value::String(text) => Ok(text),
            _ => Err(wrong(name, "type", "must be a string")),
        },
        _ => Err(wrong(name, "type", "must be a string")),
    }
}

/// Nothing, `4501` or `[4501]`.
fn reason(args: Value) -> Result<CloseReason, ActionError> {
    let code = match args {
        Value::Array(list) if list.len() <= 1 => list.into_iter().next().unwrap_or_default(),
        other => other,
    };
    if code.is_null() {
        return Ok(CloseReason::Destroyed);
    }
    let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
    code.and_then(CloseReason::of_application).ok_or_else(|| wrong("code", "range", "must be from 4500 to 4999"))
}

/// `["key", value]`.
fn key_and_value(args: Value) -> Result<(String, Value), ActionError> {
    if let Value::Array(list) = args
        && let Ok([Value::String(key), value]) = <[Value; 2]>::try_from(list)
    {
        return Ok((key, value));
    }
    Err(wrong("", "type", "the arguments must be a list of a key and a value"))
}

pub(super) fn wrong(path: &str, code: &'static str, message: &'static str) -> ActionError {
    ActionError::invalid_input(vec![Detail::new(path, code, message)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_may_come_alone_or_in_a_list() {
        for (args, text) in [(json!("lobby"), Some("lobby")), (json!(["lobby"]), Some("lobby"))] {
            assert_eq!(one_text(args, "room").ok().as_deref(), text);
        }
        for args in [json!(null), json!(5), json!([]), json!(["a", "b"]), json!([5]), json!({ "room": "a" })] {
            let refused = one_text(args.clone(), "room").unwrap_err();
            assert_eq!((refused.code(), refused.details()[0].path.as_str()), ("invalid_input", "room"), "{args}");
        }
        assert_eq!(key_and_value(json!(["k", null])).unwrap(), ("k".into(), Value::Null));
        for args in [json!(null), json!(["k"]), json!([1, 2]), json!(["k", 1, 2]), json!("k")] {
            assert_eq!(key_and_value(args.clone()).unwrap_err().code(), "invalid_input", "{args}");
        }
    }

    #[test]
    fn a_message_says_its_own_context_or_is_a_response() {
        let check = |args: Value, expected: Value| assert_eq!(Value::Object(message(args)), expected);
        check(json!({ "a": 1 }), json!({ "a": 1, "context": "response" }));
        check(json!([{ "a": 1 }]), json!({ "a": 1, "context": "response" }));
        check(json!({ "context": "alert", "a": 1 }), json!({ "context": "alert", "a": 1 }));
        check(json!("hello"), json!({ "message": "hello", "context": "response" }));
        check(json!([1, 2]), json!({ "message": [1, 2], "context": "response" }));
        check(Value::Null, json!({ "message": null, "context": "response" }));
    }

    #[test]
    fn a_connection_is_destroyed_with_a_code_that_forbids_to_return() {
        for (args, code) in [(json!(null), 4500), (json!([]), 4500), (json!(4501), 4501), (json!([4999]), 4999)] {
            assert_eq!(reason(args).unwrap().code(), code);
        }
        for args in [json!(1000), json!(4499), json!([5000]), json!("4501"), json!([4501, 1]), json!({ "code": 4501 })]
        {
            assert_eq!(reason(args.clone()).unwrap_err().code(), "invalid_input", "{args}");
        }
    }

    #[test]
    fn every_name_is_read_and_no_other() {
        for name in BuiltIn::NAMES {
            let args = match name {
                "set" => json!(["k", 1]),
                "destroy" => Value::Null,
                _ => json!("k"),
            };
            assert!(BuiltIn::read(name, args).unwrap().is_ok(), "{name}");
        }
        assert_eq!(BuiltIn::read("rename", json!(["k"])).unwrap(), Err(json!(["k"])));
    }
}

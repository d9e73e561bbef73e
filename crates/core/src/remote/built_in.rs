//! The arguments of built-in methods.

use serde_json::{Map, Value};

use super::execute::invalid_args;
use crate::error::ActionError;
use crate::operation::{Operation, OperationKind};
use crate::protocol::CloseReason;

/// A call with its arguments checked, as far as its method is built in.
#[derive(Debug)]
pub(super) enum ParsedCall {
    /// An operation that every connection has.
    BuiltIn(Operation),
    /// A method of the application, with its arguments as they came.
    Application(Value),
}

/// Parses a call.
///
/// # Errors
///
/// `invalid_input` if the arguments do not fit the built-in method.
pub(super) fn parse(method: &str, args: Value) -> Result<ParsedCall, ActionError> {
    let Some(kind) = OperationKind::of_method(method) else { return Ok(ParsedCall::Application(args)) };
    Ok(ParsedCall::BuiltIn(match kind {
        OperationKind::Details => Operation::Details,
        OperationKind::Get => Operation::Get(one_text(args, "key")?),
        OperationKind::Set => {
            let (key, value) = key_and_value(args)?;
            Operation::Set(key, value)
        }
        OperationKind::SendMessage => Operation::SendMessage(message(args)),
        OperationKind::File => Operation::File(one_text(args, "file")?),
        OperationKind::RoomAdd => Operation::RoomAdd(one_text(args, "room")?),
        OperationKind::RoomLeave => Operation::RoomLeave(one_text(args, "room")?),
        OperationKind::Destroy => Operation::Destroy(reason(args)?),
        // Of clients alone: the table names no method for them.
        OperationKind::RoomView | OperationKind::Say | OperationKind::Quit => return Ok(ParsedCall::Application(args)),
    }))
}

/// A message for one client, alone or in a list.
fn message(args: Value) -> Map<String, Value> {
    in_context(match args {
        Value::Array(mut list) if list.len() == 1 && list[0].is_object() => list.remove(0),
        args => args,
    })
}

/// A message for clients: an object brings its own context, anything else travels as `message`.
pub(crate) fn in_context(message: Value) -> Map<String, Value> {
    let mut object = match message {
        Value::Object(object) => object,
        other => Map::from_iter([("message".to_owned(), other)]),
    };
    object.entry("context").or_insert_with(|| "response".into());
    object
}

/// `"lobby"` or `["lobby"]`.
fn one_text(args: Value, name: &str) -> Result<String, ActionError> {
    let arg = match args {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        arg => arg,
    };
    match arg {
        Value::String(text) => Ok(text),
        _ => Err(invalid_args(name, "type", "must be a string")),
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
    code.and_then(CloseReason::of_application).ok_or_else(|| invalid_args("code", "range", "must be from 4500 to 4999"))
}

/// `["key", value]`.
fn key_and_value(args: Value) -> Result<(String, Value), ActionError> {
    if let Value::Array(list) = args
        && let Ok([Value::String(key), value]) = <[Value; 2]>::try_from(list)
    {
        return Ok((key, value));
    }
    Err(invalid_args("", "type", "the arguments must be a list of a key and a value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operation::OPERATIONS;

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
    fn a_message_has_its_own_context_or_is_a_response() {
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
    fn every_method_of_the_table_is_parsed_and_no_other() {
        for row in OPERATIONS {
            let Some(method) = row.method else { continue };
            let args = match row.kind {
                OperationKind::Set => json!(["k", 1]),
                OperationKind::Destroy => Value::Null,
                _ => json!("k"),
            };
            assert!(matches!(parse(method, args), Ok(ParsedCall::BuiltIn(_))), "{method}");
        }
        for method in ["rename", "say", "quit", "roomView"] {
            let parsed = parse(method, json!(["k"])).unwrap();
            assert!(matches!(parsed, ParsedCall::Application(args) if args == json!(["k"])), "{method}");
        }
    }
}

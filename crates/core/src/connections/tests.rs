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
    let check = |args: Value, expected: Value| {
        let text = message_text(args).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
    };
    check(json!({ "a": 1 }), json!({ "a": 1, "context": "response" }));
    check(json!([{ "a": 1 }]), json!({ "a": 1, "context": "response" }));
    check(json!({ "context": "alert", "a": 1 }), json!({ "context": "alert", "a": 1 }));
    check(json!("hello"), json!({ "message": "hello", "context": "response" }));
    check(json!([1, 2]), json!({ "message": [1, 2], "context": "response" }));
    check(Value::Null, json!({ "message": null, "context": "response" }));
}

#[test]
fn each_failure_of_a_call_has_its_code_and_kind() {
    for (error, code, kind) in [
        (ApplyError::NotFound, "not_found", ErrorKind::NotFound),
        (ApplyError::UnknownMethod, "unknown_method", ErrorKind::NotFound),
        (ApplyError::Unreachable, "unreachable", ErrorKind::Unavailable),
        (ApplyError::Late, "late", ErrorKind::Timeout),
        (ApplyError::Refused(ActionError::forbidden("no")), "forbidden", ErrorKind::Forbidden),
    ] {
        let error = ActionError::from(error);
        assert_eq!((error.code(), error.kind()), (code, kind));
    }
}

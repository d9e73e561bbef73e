use phalanx_core::connection::{Attributes, Connection, NewConnection, OutboxLimit};
use phalanx_core::protocol::splice;
use phalanx_core::verb::VerbAnswer;
use serde_json::{Value, json};

use super::*;

fn code_of(text: &str) -> String {
    match decode(text, 128) {
        Err(MalformedFrame { .. }) => "malformed".to_owned(),
        Ok(DecodedFrame { request: ClientRequest::Invalid(error), .. }) => error.code().to_owned(),
        Ok(DecodedFrame { request: ClientRequest::Action { name, .. }, .. }) => format!("action {name}"),
        Ok(DecodedFrame { request: ClientRequest::Verb(verb), .. }) => format!("{verb:?}"),
    }
}

fn json_of(frame: Frame) -> Value {
    let Frame::Text(bytes) = frame else { panic!("replies are text") };
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn every_verb_is_decoded_and_every_error_is_named() {
    for (text, expected) in [
        (r#"{"event":"detailsView"}"#, "Details"),
        (r#"{"event":"details\u0056iew"}"#, "Details"),
        (r#"{"event":"roomAdd","room":"a"}"#, r#"RoomAdd("a")"#),
        (r#"{"room":"a","event":"roomLeave","more":{"x":1}}"#, r#"RoomLeave("a")"#),
        (r#"{"event":"roomView","room":"a"}"#, r#"RoomView("a", None)"#),
        (
            r#"{"event":"roomView","room":"a","after":"5.8.x"}"#,
            r#"RoomView("a", Some(MembersCursor { scan: 5, end: 8, last: Some(x) }))"#,
        ),
        (r#"{"event":"roomView","room":"a","after":null}"#, r#"RoomView("a", None)"#),
        (r#"{"event":"roomView","room":"a","after":5}"#, "invalid_input"),
        (r#"{"event":"roomView","room":"a","after":"x"}"#, "invalid_input"),
        (r#"{"event":"roomView","room":"a","after":"1.2.\ud83d"}"#, "invalid_input"),
        (r#"{"event":"file","file":"a/b.txt"}"#, r#"File("a/b.txt")"#),
        (r#"{"event":"quit"}"#, "Quit"),
        (r#"{"event":"exit"}"#, "Quit"),
        (r#"{"event":"action","params":{"action":"x"}}"#, "action x"),
        (r#"{"event":"action","params":{"action":"x","apiVersion":"2"}}"#, "action x"),
        (r#"{"event":"action","params":{"action":"x","apiVersion":"__proto__"}}"#, "not_found"),
        (r#"{"event":"action","params":{"action":"x","apiVersion":""}}"#, "action x"),
        (r#"{"event":"action","params":{"action":"x","apiVersion":true}}"#, "not_found"),
        (r#"{"event":"action","params":{"action":"x","action":"y"}}"#, "action y"),
        (r#"{"event":"action","params":["x"]}"#, "malformed"),
        (r#"{"event":"action","params":{"action":5}}"#, "not_found"),
        (r#"{"event":"action","params":"x"}"#, "not_found"),
        (r#"{"event":"Action","params":{"action":"x"}}"#, "not_found"),
        (r#"{"event":"say","room":"a"}"#, "invalid_input"),
        (r#"{"event":"say","message":1}"#, "invalid_input"),
        (r#"{"event":"say","room":"a","message":null}"#, "invalid_input"),
        (r#"{"event":"roomAdd","room":"a b"}"#, "invalid_input"),
        (r#"{"event":"say","room":"a","message":"\ud83d"}"#, "malformed"),
        (r#"{"event":"say","room":"a","message":{"n":[-1e400]}}"#, "malformed"),
        (r#"{"event":"say","room":"a","message":"\ud83d\ude00 1e400"}"#, r#"Say("a", RawValue("\ud83d\ude00 1e400"))"#),
        (r#"{"event":"quit","messageId":"\ude00"}"#, "malformed"),
        (r#"{"event":"quit","messageId":1e400}"#, "malformed"),
        (r#"{"event":"quit","messageId":1e3}"#, "Quit"),
        ("\u{feff}{\"event\":\"quit\"}", "Quit"),
        ("\u{feff}\u{feff}{\"event\":\"quit\"}", "malformed"),
        ("\u{feff}", "malformed"),
        ("", "malformed"),
        ("null", "malformed"),
        ("[]", "malformed"),
        (r#"["quit"]"#, "malformed"),
        ("\"primus::ping::1\"", "malformed"),
        (r#"{"event":null}"#, "malformed"),
        (r#"{"event":"quit"} trailing"#, "malformed"),
    ] {
        assert_eq!(code_of(text), expected, "{text}");
    }
}

#[test]
fn the_error_of_a_malformed_frame_has_its_message_id_if_there_is_one() {
    for (text, id) in [
        (r#"{"messageId":7}"#, Some(json!(7))),
        (r#"{"event":5,"messageId":"a"}"#, Some(json!("a"))),
        (r#"{"messageId":{}}"#, None),
        ("[]", None),
    ] {
        let reply = json_of(decode(text, 128).unwrap_err().reply());
        assert_eq!(
            (reply["error"]["code"].as_str(), reply.get("messageId")),
            (Some("malformed"), id.as_ref()),
            "{text}"
        );
    }
}

#[test]
fn one_error_names_both_missing_fields_of_say() {
    let Ok(DecodedFrame { request: ClientRequest::Invalid(error), .. }) = decode(r#"{"event":"say"}"#, 128) else {
        panic!("it is invalid")
    };
    let details: Vec<_> = error.details().iter().map(|detail| (detail.path.as_str(), detail.code.as_ref())).collect();
    assert_eq!(details, [("room", "required"), ("message", "required")]);
}

#[test]
fn a_message_may_be_any_json_that_is_not_nested_too_deep() {
    let decoded = |message: &str| code_of(&format!(r#"{{"event":"say","room":"a","message":{message}}}"#));
    for message in ["1", "false", "\"[[[[\"", r#"{"deep":[1]}"#, r#""\"[""#] {
        assert!(decoded(message).starts_with("Say"), "{message}");
    }
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(decoded(&nested(100)).starts_with("Say"));
    assert_eq!(decoded(&nested(101)), "invalid_input");
    assert_eq!(decoded(&nested(30_000)), "invalid_input", "at any depth: no parser recurses into it");
}

#[test]
fn replies_have_context_and_message_id_beside_their_own_fields() {
    let reply = |object: &'static [u8]| json_of(Frame::Text(splice(object, "\"m\"")));
    assert_eq!(reply(b"{}"), json!({ "context": "response", "messageId": "m" }));
    assert_eq!(reply(br#"{"a":1}"#), json!({ "a": 1, "context": "response", "messageId": "m" }));
    let refusal = error("7", &ActionError::forbidden("no"));
    let expected = json!({ "error": { "code": "forbidden", "message": "no" }, "context": "response", "messageId": 7 });
    assert_eq!(json_of(refusal), expected);
    let expected = json!({ "error": { "code": "forbidden", "message": "no" }, "context": "response" });
    assert_eq!(json_of(error_without_id(&ActionError::forbidden("no"))), expected);
}

#[test]
fn a_published_message_is_ok_without_data() {
    let connection = Connection::new(NewConnection {
        id: phalanx_core::ConnectionId::parse("g-1").unwrap(),
        fingerprint: "f".into(),
        remote: ([127, 0, 0, 1], 1).into(),
        attributes: Attributes::limited(0),
        connected_at: 3,
        outbox: OutboxLimit { frames: 1, bytes: 1 },
    });
    let reply = |answer| json_of(verb_reply("1", &connection, Ok(answer)));
    assert_eq!(reply(VerbAnswer::Published), json!({ "status": "OK", "context": "response", "messageId": 1 }));
    let done = json!({ "status": "OK", "context": "response", "data": true, "messageId": 1 });
    assert_eq!(reply(VerbAnswer::Done), done);
    assert_eq!(reply(VerbAnswer::Details)["data"]["connectedAt"], 3);
}

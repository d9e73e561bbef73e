use phalanx_core::connection::{Attributes, Connection, NewConnection, OutboxLimit};
use phalanx_core::verb::VerbAnswer;
use serde_json::{Value, json};

use super::encode::spliced;
use super::*;

fn code_of(text: &str) -> String {
    match decode(text, 128) {
        Err(Malformed { .. }) => "malformed".to_owned(),
        Ok(Asked { ask: Err(error), .. }) => error.code().to_owned(),
        Ok(Asked { ask: Ok(Ask::Action { name, .. }), .. }) => format!("action {name}"),
        Ok(Asked { ask: Ok(Ask::Verb(verb)), .. }) => format!("{verb:?}"),
    }
}

fn text_of_frame(frame: Frame) -> Value {
    let Frame::Text(bytes) = frame else { panic!("answers are text") };
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn every_verb_is_read_and_every_fault_named() {
    for (text, expected) in [
        (r#"{"event":"detailsView"}"#, "DetailsView"),
        (r#"{"event":"details\u0056iew"}"#, "DetailsView"),
        (r#"{"event":"roomAdd","room":"a"}"#, r#"RoomAdd("a")"#),
        (r#"{"room":"a","event":"roomLeave","more":{"x":1}}"#, r#"RoomLeave("a")"#),
        (r#"{"event":"roomView","room":"a"}"#, r#"RoomView("a")"#),
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
fn what_is_malformed_is_told_under_its_own_id_if_it_has_one() {
    for (text, id) in [
        (r#"{"messageId":7}"#, Some(json!(7))),
        (r#"{"event":5,"messageId":"a"}"#, Some(json!("a"))),
        (r#"{"messageId":{}}"#, None),
        ("[]", None),
    ] {
        let answer = text_of_frame(decode(text, 128).unwrap_err().answer());
        assert_eq!(
            (answer["error"]["code"].as_str(), answer.get("messageId")),
            (Some("malformed"), id.as_ref()),
            "{text}"
        );
    }
}

#[test]
fn both_missing_fields_of_say_are_told_at_once() {
    let Ok(Asked { ask: Err(error), .. }) = decode(r#"{"event":"say"}"#, 128) else { panic!("it is refused") };
    let details: Vec<_> = error.details().iter().map(|detail| (detail.path.as_str(), detail.code.as_ref())).collect();
    assert_eq!(details, [("room", "required"), ("message", "required")]);
}

#[test]
fn a_message_may_be_anything_that_does_not_harm_its_readers() {
    let say = |message: &str| code_of(&format!(r#"{{"event":"say","room":"a","message":{message}}}"#));
    for message in ["1", "false", "\"[[[[\"", r#"{"deep":[1]}"#, r#""\"[""#] {
        assert!(say(message).starts_with("Say"), "{message}");
    }
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(say(&nested(100)).starts_with("Say"));
    assert_eq!(say(&nested(101)), "invalid_input");
    assert_eq!(say(&nested(30_000)), "invalid_input", "however deep: no parser recurses into it");
}

#[test]
fn answers_carry_context_and_id_beside_their_own_fields() {
    let answered = |object: &'static [u8]| text_of_frame(spliced(object, "\"m\""));
    assert_eq!(answered(b"{}"), json!({ "context": "response", "messageId": "m" }));
    assert_eq!(answered(br#"{"a":1}"#), json!({ "a": 1, "context": "response", "messageId": "m" }));
    let refused = error("7", &ActionError::forbidden("no"));
    let expected = json!({ "error": { "code": "forbidden", "message": "no" }, "context": "response", "messageId": 7 });
    assert_eq!(text_of_frame(refused), expected);
    let expected = json!({ "error": { "code": "forbidden", "message": "no" }, "context": "response" });
    assert_eq!(text_of_frame(error_without_id(&ActionError::forbidden("no"))), expected);
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
    let answer = |answer| text_of_frame(verb_answer("1", &connection, Ok(answer)));
    assert_eq!(answer(VerbAnswer::Published), json!({ "status": "OK", "context": "response", "messageId": 1 }));
    let done = json!({ "status": "OK", "context": "response", "data": true, "messageId": 1 });
    assert_eq!(answer(VerbAnswer::Done), done);
    assert_eq!(answer(VerbAnswer::Details)["data"]["connectedAt"], 3);
}

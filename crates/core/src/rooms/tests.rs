use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::publish::to_raw;
use super::*;
use crate::protocol::{self, ENVELOPE, PresenceChange, PresenceEvent, RoomMessage};

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_message_is_written_once_and_read_back_as_it_was() {
    for message in ["1", "null", "\"a \\\"quote\\\"\"", r#"{"z":1,"a":[1.0,1e400]}"#] {
        let message = RawValue::from_string(message.to_owned()).unwrap();
        let sent = RoomMessage { room: "a:b".into(), from: "id\"\\\n".into(), sent_at: 7, message };
        let bytes = sent.to_payload();
        let back = RoomMessage::from_payload(&bytes).unwrap();
        assert_eq!((&back.room, &back.from, back.sent_at), (&sent.room, &sent.from, 7));
        assert_eq!(back.message.get(), sent.message.get(), "not a digit of it is touched");
        assert!(bytes.len() as u64 <= sent.message.get().len() as u64 + ENVELOPE);
    }
}

#[test]
fn room_messages_have_the_fields_of_the_contract() {
    let message = to_raw(&json!({ "deep": [1] })).unwrap();
    let sent = RoomMessage { room: "lobby".into(), from: RoomMessage::SERVER.into(), sent_at: 5, message };
    let expected = json!({ "message": { "deep": [1] }, "room": "lobby", "from": "0", "context": "user", "sentAt": 5 });
    assert_eq!(json_of(&sent.to_payload()), expected);
    let expected = json!({ "context": "presence", "event": "join", "room": "lobby", "member": "g-1" });
    assert_eq!(json_of(&protocol::encode(&PresenceEvent::new(PresenceChange::Join, "lobby", &["g-1"]))), expected);
}

#[test]
fn room_names_are_plain_and_bounded() {
    for (name, is_name) in
        [("lobby", true), ("A:b.c_d-9", true), ("", false), ("a b", false), ("é", false), ("a/b", false)]
    {
        assert_eq!(check_name(name).is_ok(), is_name, "{name:?}");
    }
    assert!(check_name(&"x".repeat(100)).is_ok() && check_name(&"x".repeat(101)).is_err());
}

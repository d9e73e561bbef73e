//! The messages on Actionhero's channel: JSON, with a token in the clear.
//!
//! All messages of our nodes start with the same bytes, a field that Actionhero ignores, so that our nodes can skip
//! each other's messages without parsing them.

use std::sync::Arc;

use phalanx_core::ConnectionId;
use phalanx_core::backend::{InteropCall, Publication, PublicationKind};
use phalanx_core::protocol::{RoomMessage, check_json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::envelope::Refusal;

/// The most bytes of a message besides its text or its arguments.
const MAX_OVERHEAD: usize = 4096;

/// Encodes and decodes messages.
pub(super) struct InteropCodec {
    /// The start of every message of our nodes, up to the comma after the first field.
    own_prefix: Vec<u8>,
    node: String,
    token: String,
    max_message: usize,
    max_call: usize,
}

/// A received message.
#[derive(Debug)]
pub(super) enum InteropMessage {
    /// A message to a room.
    Chat(Publication),
    /// A call to a connection, which may be ours or not.
    Call(InteropCall),
    /// A line that every node is to log.
    Log { by: String, severity: String, text: String, reply_to: String },
    /// A reply to a call.
    Reply { to: String, value: Value },
    /// A message of one of our nodes, or of a kind that is not handled.
    Ignored,
}

impl InteropCodec {
    pub(super) fn new(cluster: &str, node: &str, token: &str, max_message: usize, max_call: usize) -> Self {
        let mut own_prefix = format!("{{\"phalanx\":{}", json!(cluster)).into_bytes();
        own_prefix.push(b',');
        Self { own_prefix, node: node.to_owned(), token: token.to_owned(), max_message, max_call }
    }

    /// Encodes a room message.
    pub(super) fn encode_chat(&self, chat: &RoomMessage) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct ChatFields<'a> {
            message: &'a RawValue,
            sent_at: u64,
            connection: ConnectionFields<'a>,
        }
        #[derive(Serialize)]
        struct ConnectionFields<'a> {
            id: &'a str,
            room: &'a str,
        }
        let connection = ConnectionFields { id: &chat.from, room: &chat.room };
        self.encode("chat", &ChatFields { message: &chat.message, sent_at: chat.sent_at, connection })
    }

    /// Encodes a call to the node that owns a connection.
    pub(super) fn encode_call(&self, id: &str, method: &str, connection: &str, args: &Value) -> Vec<u8> {
        let fields = json!({ "messageId": id, "method": method, "connectionId": connection, "args": args });
        self.encode("do", &fields)
    }

    /// Encodes a reply; `None` is `undefined` in Actionhero.
    pub(super) fn encode_reply(&self, to: &str, value: Option<Value>) -> Vec<u8> {
        match value {
            Some(value) => {
                self.encode("doResponse", &json!({ "messageId": to, "response": with_expected_fields(value) }))
            }
            None => self.encode("doResponse", &json!({ "messageId": to })),
        }
    }

    fn encode(&self, kind: &str, fields: &impl Serialize) -> Vec<u8> {
        let mut text = self.own_prefix.clone();
        let head = json!({ "messageType": kind, "serverId": self.node, "serverToken": self.token });
        serde_json::to_writer(&mut text, &head).expect("names are always JSON");
        text.remove(self.own_prefix.len()); // the opening brace: the prefix has one
        text.pop();
        let fields = serde_json::to_vec(fields).expect("names and JSON are always JSON");
        text.push(b',');
        text.extend_from_slice(&fields[1..]);
        text
    }

    /// Decodes a message.
    pub(super) fn decode(&self, bytes: &[u8], now_ms: u64) -> Result<InteropMessage, Refusal> {
        if bytes.starts_with(&self.own_prefix) {
            return Ok(InteropMessage::Ignored);
        }
        if bytes.len() > MAX_OVERHEAD + self.max_message.max(self.max_call) {
            return Err(Refusal::TooLarge);
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct CommonFields {
            message_type: String,
            server_token: String,
            #[serde(default)]
            server_id: Value,
        }
        let common: CommonFields = parse(bytes)?;
        if !is_equal(&common.server_token, &self.token) {
            return Err(Refusal::Unauthenticated);
        }
        match common.message_type.as_str() {
            "chat" => self.decode_chat(bytes, now_ms),
            "do" => self.decode_call(bytes, common.server_id),
            "doResponse" => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct ReplyFields {
                    message_id: String,
                    #[serde(default)]
                    response: Value,
                }
                let reply: ReplyFields = parse(bytes)?;
                Ok(InteropMessage::Reply { to: reply.message_id, value: reply.response })
            }
            _ => Ok(InteropMessage::Ignored), // a message of the application itself
        }
    }

    fn decode_chat(&self, bytes: &[u8], now_ms: u64) -> Result<InteropMessage, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ChatFields {
            message: Box<RawValue>,
            #[serde(default)]
            sent_at: Value,
            connection: ConnectionFields,
        }
        #[derive(Deserialize)]
        struct ConnectionFields {
            id: Value,
            room: String,
        }
        let chat: ChatFields = parse(bytes)?;
        if chat.message.get().len() > self.max_message {
            return Err(Refusal::TooLarge);
        }
        // JavaScript writes half a surrogate pair as it is: the frame would be unreadable for strict clients.
        check_json(chat.message.get()).map_err(|_| Refusal::Unreadable)?;
        // The sender is not always a connection: a bot, for instance, sends under a name that it chose itself.
        let from = match chat.connection.id {
            Value::String(from) if from.len() <= ConnectionId::MAX_BYTES => from,
            Value::Number(from) => from.to_string(),
            _ => return Err(Refusal::Unreadable),
        };
        let room: Arc<str> = chat.connection.room.into();
        let message = RoomMessage {
            room: room.clone(),
            from: from.into(),
            sent_at: chat.sent_at.as_u64().unwrap_or(now_ms),
            message: chat.message,
        };
        // Without a connection: the order of messages of one sender is up to the node of the sender.
        Ok(InteropMessage::Chat(Publication {
            room,
            kind: PublicationKind::Message,
            connection: None,
            payload: message.to_payload(),
        }))
    }

    fn decode_call(&self, bytes: &[u8], by: Value) -> Result<InteropMessage, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct CallFields {
            message_id: String,
            method: String,
            #[serde(default)]
            connection_id: Option<String>,
            #[serde(default)]
            args: Value,
        }
        let call: CallFields = parse(bytes)?;
        let mut args = match call.args {
            Value::Array(args) => args,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        args.resize(3, Value::Null);
        let [first, second, third] = <[Value; 3]>::try_from(args).expect("there are three");
        if call.method == "api.log" {
            let severity = second.as_str().unwrap_or("info").to_owned();
            return Ok(InteropMessage::Log {
                by: to_text(&by),
                severity,
                text: to_text(&first),
                reply_to: call.message_id,
            });
        }
        // A call without `connectionId` still names the connection in its first argument.
        let connection = call.connection_id.filter(|id| !id.is_empty()).unwrap_or_else(|| to_text(&first));
        let connection = ConnectionId::parse(&connection).map_err(|_| Refusal::Unreadable)?;
        let methods = match call.method.as_str() {
            "api.connections.applyResponder" => methods(to_text(&second), third),
            "api.chatRoom.addMember" => vec![("roomAdd".to_owned(), second)],
            "api.chatRoom.removeMember" => vec![("roomLeave".to_owned(), second)],
            _ => return Ok(InteropMessage::Ignored), // a method of the application, or one that only Actionhero has
        };
        Ok(InteropMessage::Call(InteropCall { connection, methods, reply_to: call.message_id.into() }))
    }
}

/// The methods that Actionhero runs for `apply`: the given one, unless it or its arguments are falsy, then the details.
fn methods(method: String, args: Value) -> Vec<(String, Value)> {
    let details = ("details".to_owned(), Value::Null);
    let is_falsy = matches!(&args, Value::Null | Value::Bool(false)) || args == json!(0) || args == json!("");
    if method.is_empty() || is_falsy {
        return vec![details];
    }
    let args = match args {
        // Our own methods take one object, where those of Actionhero take a list.
        Value::Array(mut list) if list.len() == 1 && list[0].is_object() => list.remove(0),
        Value::Array(list) if list.is_empty() => Value::Null,
        args => args,
    };
    if method == "destroy" {
        vec![(method, args)] // the connection has no details after it
    } else {
        vec![(method, args), details]
    }
}

/// Adds the fields that Actionhero expects of a connection and ours do not have.
fn with_expected_fields(mut value: Value) -> Value {
    if let Value::Object(connection) = &mut value {
        let expected = [
            ("messageId", json!(0)),
            ("error", Value::Null),
            ("params", json!({})),
            ("session", json!({})),
            ("canChat", json!(true)),
        ];
        for (name, value) in expected {
            connection.entry(name).or_insert(value);
        }
    }
    value
}

fn to_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|_| Refusal::Unreadable)
}

/// Compares two tokens in a time that does not depend on where they differ.
fn is_equal(one: &str, other: &str) -> bool {
    let differ = one.bytes().zip(other.bytes()).fold(0, |differ, (one, other)| differ | (one ^ other));
    one.len() == other.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(node: &str) -> InteropCodec {
        InteropCodec::new("shop", node, "secret", 100, 200)
    }

    fn chat() -> RoomMessage {
        let message = RawValue::from_string("{\"a\": [1]}".to_owned()).unwrap();
        RoomMessage { room: "lobby".into(), from: "a-1".into(), sent_at: 7, message }
    }

    fn decode(message: &Value) -> Result<InteropMessage, Refusal> {
        codec("one").decode(message.to_string().as_bytes(), 9)
    }

    fn from_actionhero(fields: Value) -> Value {
        let mut message = json!({ "serverId": "node-a", "serverToken": "secret", "messageId": "m" });
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        message
    }

    #[test]
    fn our_messages_are_as_actionhero_expects_and_ignored_by_our_nodes() {
        let encoded = codec("one").encode_chat(&chat());
        let expected = json!({
            "phalanx": "shop", "messageType": "chat", "serverId": "one", "serverToken": "secret",
            "message": { "a": [1] }, "sentAt": 7, "connection": { "id": "a-1", "room": "lobby" },
        });
        assert_eq!(serde_json::from_slice::<Value>(&encoded).unwrap(), expected);
        assert!(matches!(codec("two").decode(&encoded, 9), Ok(InteropMessage::Ignored)));
        let elsewhere = InteropCodec::new("other shop", "x", "secret", 100, 200).encode_chat(&chat());
        assert!(
            matches!(codec("one").decode(&elsewhere, 9), Ok(InteropMessage::Chat(_))),
            "messages of another cluster are decoded"
        );
        let reply: Value = serde_json::from_slice(&codec("one").encode_reply("m", None)).unwrap();
        assert_eq!((&reply["messageId"], reply.get("response")), (&json!("m"), None));
    }

    #[test]
    fn a_chat_message_of_actionhero_becomes_a_room_message() {
        let chat = json!({ "messageType": "chat", "message": "hi", "sentAt": 5,
            "connection": { "id": "7abf", "room": "lobby" } });
        let Ok(InteropMessage::Chat(message)) = decode(&from_actionhero(chat)) else { panic!("decoded") };
        let expected = json!({ "message": "hi", "room": "lobby", "from": "7abf", "context": "user", "sentAt": 5 });
        assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap(), expected);
        assert_eq!((&*message.room, message.connection), ("lobby", None));
        for (from, expected) in [(json!("Bot Ü"), "Bot Ü"), (json!(7), "7"), (json!(""), "")] {
            let chat = json!({ "messageType": "chat", "message": "hi", "connection": { "id": from, "room": "lobby" } });
            let Ok(InteropMessage::Chat(message)) = decode(&from_actionhero(chat)) else {
                panic!("decoded, from {from}")
            };
            assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap()["from"], expected);
        }
    }

    #[test]
    fn calls_are_decoded_into_the_methods_that_actionhero_runs() {
        let check = |method: &str, args: Value, expected: Value| {
            let call = json!({ "messageType": "do", "method": method, "connectionId": "c-1", "args": args });
            let Ok(InteropMessage::Call(call)) = decode(&from_actionhero(call)) else {
                panic!("decoded {method} {args}")
            };
            assert_eq!((json!(call.methods), &*call.reply_to), (expected, "m"));
            assert_eq!(call.connection.as_str(), "c-1");
        };
        let responder = "api.connections.applyResponder";
        check(responder, json!(["c-1", null, null]), json!([["details", null]]));
        check(responder, json!(["c-1", "destroy", null]), json!([["details", null]]));
        check(responder, json!(["c-1", "set", ["k", 1]]), json!([["set", ["k", 1]], ["details", null]]));
        check(
            responder,
            json!(["c-1", "sendMessage", { "a": 1 }]),
            json!([["sendMessage", { "a": 1 }], ["details", null]]),
        );
        check(
            responder,
            json!(["c-1", "promote", [{ "to": 2 }]]),
            json!([["promote", { "to": 2 }], ["details", null]]),
        );
        check(responder, json!(["c-1", "destroy", []]), json!([["destroy", null]]));
        check("api.chatRoom.addMember", json!(["c-1", "lobby"]), json!([["roomAdd", "lobby"]]));
        check("api.chatRoom.removeMember", json!(["c-1", "lobby"]), json!([["roomLeave", "lobby"]]));
    }

    /// JSON that Actionhero's parser accepts, and that of strict clients does not.
    #[test]
    fn a_message_that_strict_clients_cannot_read_is_refused() {
        for message in [r#""\ud83d""#, r#"{"n":1e400}"#, &format!("{}{}", "[".repeat(101), "]".repeat(101))] {
            let chat = format!(
                r#"{{"messageType":"chat","serverToken":"secret","message":{message},"connection":{{"id":"a","room":"r"}}}}"#
            );
            let refused = InteropCodec::new("shop", "two", "secret", 1000, 200).decode(chat.as_bytes(), 9);
            assert_eq!(refused.unwrap_err(), Refusal::Unreadable, "{message}");
        }
    }

    #[test]
    fn invalid_messages_are_refused_and_unknown_ones_ignored() {
        let wrong = json!({ "messageType": "chat", "serverToken": "wrong" });
        assert_eq!(decode(&wrong).unwrap_err(), Refusal::Unauthenticated);
        for rubbish in ["null", "[]", "not json", "{}", "7", "\"x\"", ""] {
            assert_eq!(codec("one").decode(rubbish.as_bytes(), 9).unwrap_err(), Refusal::Unreadable, "{rubbish}");
        }
        let connection = json!({ "id": "a", "room": "lobby" });
        let large = json!({ "messageType": "chat", "message": "x".repeat(100), "connection": connection });
        assert_eq!(decode(&from_actionhero(large)).unwrap_err(), Refusal::TooLarge);
        let huge = json!({ "messageType": "chat", "message": "x".repeat(5000), "connection": connection });
        assert_eq!(decode(&huge).unwrap_err(), Refusal::TooLarge);
        for broken in [
            json!({ "messageType": "chat", "connection": connection }),
            json!({ "messageType": "chat", "message": 1, "connection": 7 }),
            json!({ "messageType": "do", "method": 7 }),
            json!({ "messageType": "do", "method": "api.chatRoom.removeMember", "args": [] }),
        ] {
            assert_eq!(decode(&from_actionhero(broken)).unwrap_err(), Refusal::Unreadable);
        }
        for unknown in [
            json!({ "messageType": "their own" }),
            json!({ "messageType": "do", "method": "api.cache.load", "connectionId": "c-1" }),
        ] {
            assert!(matches!(decode(&from_actionhero(unknown)), Ok(InteropMessage::Ignored)));
        }
    }
}

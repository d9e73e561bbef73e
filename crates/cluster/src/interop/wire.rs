//! Messages on Actionhero's channel: JSON, with a token in the clear.
//!
//! Ours begin with the same bytes, a field that Actionhero passes over: our nodes need not read them.

use std::sync::Arc;

use phalanx_core::ConnectionId;
use phalanx_core::backend::{Asked, Message, MessageKind};
use phalanx_core::hooks::Said;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::envelope::Refusal;

/// Most bytes beside the message or the arguments.
const ENVELOPE: usize = 4096;

/// Writes and reads messages.
pub(super) struct Wire {
    ours: Vec<u8>,
    node: String,
    token: String,
    max_message: usize,
    max_call: usize,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Heard {
    /// It was said in a room.
    Said(Message),
    /// A connection is asked, of ours or of others.
    Asked(Asked),
    /// Everybody is to log this.
    Log { by: String, severity: String, text: String, reply_to: String },
    /// One of them answers.
    Answer { to: String, answer: Value },
    /// It came from us, or is nothing for us.
    Nothing,
}

impl Wire {
    pub(super) fn new(cluster: &str, node: &str, token: &str, max_message: usize, max_call: usize) -> Self {
        let mut ours = format!("{{\"phalanx\":{}", json!(cluster)).into_bytes();
        ours.push(b',');
        Self { ours, node: node.to_owned(), token: token.to_owned(), max_message, max_call }
    }

    /// What is said in a room, for their members of it.
    pub(super) fn said(&self, said: &Said) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Chat<'a> {
            message: &'a RawValue,
            sent_at: u64,
            connection: Place<'a>,
        }
        #[derive(Serialize)]
        struct Place<'a> {
            id: &'a str,
            room: &'a str,
        }
        let connection = Place { id: &said.from, room: &said.room };
        self.write("chat", &Chat { message: &said.message, sent_at: said.sent_at, connection })
    }

    /// Asks the owner of a connection.
    pub(super) fn call(&self, id: &str, method: &str, connection: &str, args: &Value) -> Vec<u8> {
        let fields = json!({ "messageId": id, "method": method, "connectionId": connection, "args": args });
        self.write("do", &fields)
    }

    /// Answers; `None` is their undefined.
    pub(super) fn answer(&self, to: &str, answer: Option<Value>) -> Vec<u8> {
        match answer {
            Some(answer) => {
                self.write("doResponse", &json!({ "messageId": to, "response": with_their_fields(answer) }))
            }
            None => self.write("doResponse", &json!({ "messageId": to })),
        }
    }

    fn write(&self, kind: &str, fields: &impl Serialize) -> Vec<u8> {
        let mut text = self.ours.clone();
        let head = json!({ "messageType": kind, "serverId": self.node, "serverToken": self.token });
        serde_json::to_writer(&mut text, &head).expect("names are always JSON");
        text.remove(self.ours.len()); // its opening brace: ours is open
        text.pop();
        let fields = serde_json::to_vec(fields).expect("names and JSON are always JSON");
        text.push(b',');
        text.extend_from_slice(&fields[1..]);
        text
    }

    /// Reads what somebody wrote.
    pub(super) fn read(&self, bytes: &[u8], now_ms: u64) -> Result<Heard, Refusal> {
        if bytes.starts_with(&self.ours) {
            return Ok(Heard::Nothing);
        }
        if bytes.len() > ENVELOPE + self.max_message.max(self.max_call) {
            return Err(Refusal::TooLarge);
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            message_type: String,
            server_token: String,
            #[serde(default)]
            server_id: Value,
        }
        let head: Head = read(bytes)?;
        if !is_same(&head.server_token, &self.token) {
            return Err(Refusal::Unsealed);
        }
        match head.message_type.as_str() {
            "chat" => self.read_said(bytes, now_ms),
            "do" => self.read_call(bytes, head.server_id),
            "doResponse" => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Answer {
                    message_id: String,
                    #[serde(default)]
                    response: Value,
                }
                let answer: Answer = read(bytes)?;
                Ok(Heard::Answer { to: answer.message_id, answer: answer.response })
            }
            _ => Ok(Heard::Nothing), // an application's own
        }
    }

    fn read_said(&self, bytes: &[u8], now_ms: u64) -> Result<Heard, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Chat {
            message: Box<RawValue>,
            #[serde(default)]
            sent_at: Value,
            connection: Place,
        }
        #[derive(Deserialize)]
        struct Place {
            id: Value,
            room: String,
        }
        let chat: Chat = read(bytes)?;
        if chat.message.get().len() > self.max_message {
            return Err(Refusal::TooLarge);
        }
        // No connection may have said it: a bot, for instance, has the name that it gave itself.
        let from = match chat.connection.id {
            Value::String(from) if from.len() <= ConnectionId::MAX_BYTES => from,
            Value::Number(from) => from.to_string(),
            _ => return Err(Refusal::Unreadable),
        };
        let room: Arc<str> = chat.connection.room.into();
        let said = Said {
            room: room.clone(),
            from: from.into(),
            sent_at: chat.sent_at.as_u64().unwrap_or(now_ms),
            message: chat.message,
        };
        // Nobody of ours speaks: their own nodes keep their speakers in order.
        Ok(Heard::Said(Message { room, kind: MessageKind::Said, who: None, payload: said.to_payload() }))
    }

    fn read_call(&self, bytes: &[u8], by: Value) -> Result<Heard, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Call {
            message_id: String,
            method: String,
            #[serde(default)]
            connection_id: Option<String>,
            #[serde(default)]
            args: Value,
        }
        let call: Call = read(bytes)?;
        let mut args = match call.args {
            Value::Array(args) => args,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        args.resize(3, Value::Null);
        let [first, second, third] = <[Value; 3]>::try_from(args).expect("there are three");
        if call.method == "api.log" {
            let severity = second.as_str().unwrap_or("info").to_owned();
            return Ok(Heard::Log { by: text(&by), severity, text: text(&first), reply_to: call.message_id });
        }
        // Addressed to nobody, it still names the connection.
        let connection = call.connection_id.filter(|id| !id.is_empty()).unwrap_or_else(|| text(&first));
        let connection = ConnectionId::parse(&connection).map_err(|_| Refusal::Unreadable)?;
        let methods = match call.method.as_str() {
            "api.connections.applyResponder" => methods(text(&second), third),
            "api.chatRoom.addMember" => vec![("roomAdd".to_owned(), second)],
            "api.chatRoom.removeMember" => vec![("roomLeave".to_owned(), second)],
            _ => return Ok(Heard::Nothing), // of an application, or of a node that is not ours
        };
        Ok(Heard::Asked(Asked { connection, methods, reply_to: call.message_id.into() }))
    }
}

/// What Actionhero runs for `apply`: the method, if it and its arguments are something, then the details.
fn methods(method: String, args: Value) -> Vec<(String, Value)> {
    let details = ("details".to_owned(), Value::Null);
    let is_nothing = matches!(&args, Value::Null | Value::Bool(false)) || args == json!(0) || args == json!("");
    if method.is_empty() || is_nothing {
        return vec![details];
    }
    let args = match args {
        // Our own methods take one object, where theirs take a list.
        Value::Array(mut list) if list.len() == 1 && list[0].is_object() => list.remove(0),
        Value::Array(list) if list.is_empty() => Value::Null,
        args => args,
    };
    match method.as_str() {
        "destroy" => vec![(method, args)], // there are no details after it
        _ => vec![(method, args), details],
    }
}

/// A connection as they know it has more fields.
fn with_their_fields(mut answer: Value) -> Value {
    if let Value::Object(connection) = &mut answer {
        let theirs = [
            ("messageId", json!(0)),
            ("error", Value::Null),
            ("params", json!({})),
            ("session", json!({})),
            ("canChat", json!(true)),
        ];
        for (name, value) in theirs {
            connection.entry(name).or_insert(value);
        }
    }
    answer
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|_| Refusal::Unreadable)
}

/// Takes as long for a wrong token as for the right one.
fn is_same(one: &str, other: &str) -> bool {
    let differ = one.bytes().zip(other.bytes()).fold(0, |differ, (one, other)| differ | (one ^ other));
    one.len() == other.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(node: &str) -> Wire {
        Wire::new("shop", node, "secret", 100, 200)
    }

    fn said() -> Said {
        let message = RawValue::from_string("{\"a\": [1]}".to_owned()).unwrap();
        Said { room: "lobby".into(), from: "a-1".into(), sent_at: 7, message }
    }

    fn heard(message: &Value) -> Result<Heard, Refusal> {
        wire("one").read(message.to_string().as_bytes(), 9)
    }

    fn from_them(fields: Value) -> Value {
        let mut message = json!({ "serverId": "node-a", "serverToken": "secret", "messageId": "m" });
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        message
    }

    #[test]
    fn ours_are_what_they_expect_and_nothing_to_ourselves() {
        let written = wire("one").said(&said());
        let expected = json!({
            "phalanx": "shop", "messageType": "chat", "serverId": "one", "serverToken": "secret",
            "message": { "a": [1] }, "sentAt": 7, "connection": { "id": "a-1", "room": "lobby" },
        });
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
        assert!(matches!(wire("two").read(&written, 9), Ok(Heard::Nothing)));
        let elsewhere = Wire::new("other shop", "x", "secret", 100, 200).said(&said());
        assert!(matches!(wire("one").read(&elsewhere, 9), Ok(Heard::Said(_))), "another cluster is a stranger");
        let answer: Value = serde_json::from_slice(&wire("one").answer("m", None)).unwrap();
        assert_eq!((&answer["messageId"], answer.get("response")), (&json!("m"), None));
    }

    #[test]
    fn what_is_said_there_is_heard_here() {
        let chat = json!({ "messageType": "chat", "message": "hi", "sentAt": 5,
            "connection": { "id": "7abf", "room": "lobby" } });
        let Ok(Heard::Said(message)) = heard(&from_them(chat)) else { panic!("said") };
        let expected = json!({ "message": "hi", "room": "lobby", "from": "7abf", "context": "user", "sentAt": 5 });
        assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap(), expected);
        assert_eq!((&*message.room, message.who), ("lobby", None));
        for (from, heard_from) in [(json!("Bot Ü"), "Bot Ü"), (json!(7), "7"), (json!(""), "")] {
            let chat = json!({ "messageType": "chat", "message": "hi", "connection": { "id": from, "room": "lobby" } });
            let Ok(Heard::Said(message)) = heard(&from_them(chat)) else { panic!("said by {from}") };
            assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap()["from"], heard_from);
        }
    }

    #[test]
    fn calls_are_read_as_they_run_them() {
        let check = |method: &str, args: Value, expected: Value| {
            let call = json!({ "messageType": "do", "method": method, "connectionId": "c-1", "args": args });
            let Ok(Heard::Asked(asked)) = heard(&from_them(call)) else { panic!("asked {method} {args}") };
            assert_eq!((json!(asked.methods), &*asked.reply_to), (expected, "m"));
            assert_eq!(asked.connection.as_str(), "c-1");
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

    #[test]
    fn rubbish_is_refused_and_what_is_not_for_us_passed_over() {
        let wrong = json!({ "messageType": "chat", "serverToken": "wrong" });
        assert_eq!(heard(&wrong).unwrap_err(), Refusal::Unsealed);
        for rubbish in ["null", "[]", "not json", "{}", "7", "\"x\"", ""] {
            assert_eq!(wire("one").read(rubbish.as_bytes(), 9).unwrap_err(), Refusal::Unreadable, "{rubbish}");
        }
        let place = json!({ "id": "a", "room": "lobby" });
        let large = json!({ "messageType": "chat", "message": "x".repeat(100), "connection": place });
        assert_eq!(heard(&from_them(large)).unwrap_err(), Refusal::TooLarge);
        let huge = json!({ "messageType": "chat", "message": "x".repeat(5000), "connection": place });
        assert_eq!(heard(&huge).unwrap_err(), Refusal::TooLarge);
        for broken in [
            json!({ "messageType": "chat", "connection": place }),
            json!({ "messageType": "chat", "message": 1, "connection": 7 }),
            json!({ "messageType": "do", "method": 7 }),
            json!({ "messageType": "do", "method": "api.chatRoom.removeMember", "args": [] }),
        ] {
            assert_eq!(heard(&from_them(broken)).unwrap_err(), Refusal::Unreadable);
        }
        for foreign in [
            json!({ "messageType": "their own" }),
            json!({ "messageType": "do", "method": "api.cache.load", "connectionId": "c-1" }),
        ] {
            assert!(matches!(heard(&from_them(foreign)), Ok(Heard::Nothing)));
        }
    }
}

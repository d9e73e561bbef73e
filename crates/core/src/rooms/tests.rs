use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::publish::to_raw;
use super::*;
use crate::backend::Member;
use crate::config::Config;
use crate::connection::{Attributes, Frame, JoinedRoom, NewConnection, OutboxItem, OutboxLimit};
use crate::engine::Engine;
use crate::engine::setup::NodeSetup;
use crate::id::ConnectionId;
use crate::lease_state::RecoveryRequest;
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

async fn engine_with_presence() -> Engine {
    let mut config = Config::default();
    config.rooms.start = vec!["lobby".into()];
    config.rooms.presence = vec!["lobby".into()];
    Engine::start(NodeSetup::new("test", config)).await.unwrap()
}

fn connect(engine: &Engine) -> crate::Registration {
    let connection = Connection::new(NewConnection {
        id: engine.new_connection_id(),
        fingerprint: "f".into(),
        remote: ([127, 0, 0, 1], 1).into(),
        attributes: Attributes::limited(20),
        connected_at: 0,
        outbox: OutboxLimit { frames: 100, bytes: 10_000 },
    });
    engine.register(connection).unwrap()
}

/// The changes in the next frames of a connection, until it has as many.
async fn presence(connection: &Connection, count: usize) -> Vec<(String, ConnectionId)> {
    let mut changes = Vec::new();
    while changes.len() < count {
        match connection.next() {
            OutboxItem::Frame(Frame::Text(bytes)) => {
                let frame = json_of(&bytes);
                let member = frame["member"].as_str().unwrap();
                changes.push((frame["event"].as_str().unwrap().to_owned(), ConnectionId::parse(member).unwrap()));
            }
            _ => tokio::task::yield_now().await,
        }
    }
    changes
}

/// A pass that lists a member again under a new name announces the join at its end. The member may leave before that.
#[tokio::test]
async fn a_join_that_waits_is_announced_before_the_leave_of_a_member_that_leaves_during_the_pass() {
    let engine = engine_with_presence().await;
    let (here, leaving) = (connect(&engine), connect(&engine));
    let (here, leaving) = (here.connection(), leaving.connection());
    let rooms = engine.rooms();
    rooms.join(here, "lobby").await.unwrap();
    rooms.join(leaving, "lobby").await.unwrap();
    presence(here, 2).await;
    let joined = leaving.joined_rooms().find("lobby").cloned().unwrap();
    rooms.keep_join(&JoinedRoom::new(joined.room.clone(), joined.joined_at + 1, joined.incarnation), leaving.id());
    let lock = leaving.lock_membership().await;
    rooms.exit(leaving, &joined);
    rooms.announce_waiting_changes().await.unwrap();
    let member = Member { id: leaving.id().clone(), joined_at: joined.joined_at + 1 };
    rooms.announce_own_leave(&joined.room, &member, joined.incarnation).await.unwrap();
    drop(lock);
    let id = leaving.id().clone();
    let announced = tokio::time::timeout(std::time::Duration::from_secs(20), presence(here, 2)).await;
    let announced = announced.expect("the join is announced, too");
    assert_eq!(announced, [("join".to_owned(), id.clone()), ("leave".to_owned(), id)]);
    engine.stop().await;
}

/// A pass after a reap lists a member again, and data is lost before it announces the joins. Then the member leaves, and joins
/// again.
#[tokio::test]
async fn a_join_that_waits_has_its_leave_although_the_reaper_announced_an_earlier_one() {
    let engine = engine_with_presence().await;
    let (here, leaving) = (connect(&engine), connect(&engine));
    let (here, leaving) = (here.connection(), leaving.connection());
    let (rooms, id) = (engine.rooms(), leaving.id().clone());
    rooms.join(here, "lobby").await.unwrap();
    rooms.join(leaving, "lobby").await.unwrap();
    presence(here, 2).await;
    let JoinedRoom { room, joined_at, incarnation, .. } = leaving.joined_rooms().find("lobby").cloned().unwrap();
    let member = Member { id: id.clone(), joined_at };
    rooms.announce_leave(&room, &member).await.unwrap(); // as the reaper does
    rooms.store().leave(&room, &member, incarnation, engine.node().generation()).await.unwrap();
    rooms.0.parts.lease.request_recovery(RecoveryRequest::renamed(joined_at + 1));
    leaving.joined_rooms().rejoin(&room, joined_at + 1, incarnation);
    rooms.keep_join(&JoinedRoom::new(room.clone(), joined_at + 1, incarnation), &id);
    rooms.leave(leaving, "lobby").await.unwrap();
    rooms.join(leaving, "lobby").await.unwrap();
    let announced = tokio::time::timeout(std::time::Duration::from_secs(20), presence(here, 4)).await;
    let announced = announced.expect("all changes are announced");
    let expected = ["leave", "join", "leave", "join"].map(|change| (change.to_owned(), id.clone()));
    assert_eq!(announced, expected);
    engine.stop().await;
}

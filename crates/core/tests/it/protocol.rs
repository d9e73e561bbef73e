//! Every JSON that a client reads has a committed sample.
//!
//! A change of a type shows here as a difference to its sample in `src/protocol/samples`, which the browser client's tests
//! and the guide read too: change the sample, and with it everything that reads the old shape.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use phalanx_core::backend::{Member, Members, MembersCursor};
use phalanx_core::protocol::{
    AcceptedJob, AwayEvent, ConnectionDetails, FileMessage, FilePush, GapEvent, JobView, PresenceChange, PresenceEvent,
    ReplyData, RequesterInformation, RoomMessage, RoomView, ServerInformation, Welcome, debug_fields, encode,
    error_body, splice, verb_reply, without_id,
};
use phalanx_core::{ActionError, ConnectionId, Detail};
use serde_json::json;
use serde_json::value::to_raw_value;

const ID: &str = "7ygh4vmbza-focwxi565ituudis3vwsw2";
const OTHER_ID: &str = "7ygh4vmbza-q5zjkq2vw7m3xh4tbn6yra";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/samples")
}

fn details() -> ConnectionDetails<'static> {
    ConnectionDetails {
        transport: None,
        id: ID,
        fingerprint: "xmpk4kvfz6iigv34cmefc4r4yg65umd3",
        remote_ip: "127.0.0.1".to_owned(),
        remote_port: 50312,
        params: Some(Default::default()),
        connected_at: 1_795_932_129_540,
        rooms: vec!["lobby".into()],
        total_actions: 3,
        pending_actions: 1,
        destroyed: None,
    }
}

fn file() -> FileMessage {
    FileMessage {
        content: "hello\n".to_owned(),
        encoding: None,
        mime: "text/plain".to_owned(),
        length: 6,
        last_modified: "2026-11-23T02:46:45.198Z".to_owned(),
    }
}

fn error() -> ActionError {
    ActionError::invalid_input(vec![Detail::new("name", "length", "must have 1 to 80 characters")])
}

fn room_view(next: Option<MembersCursor>) -> Vec<u8> {
    let member = Member { id: ConnectionId::parse(ID).unwrap(), joined_at: 1_795_932_129_540 };
    let count = if next.is_some() { 101 } else { 1 };
    let members = Members { listed: vec![member], count, next };
    let listed = members.listed.iter().map(|member| (member.id.as_str(), member.joined_at));
    verb_reply(
        "6",
        &ReplyData::Data(&RoomView::new("lobby", listed, members.count, members.next.map(|next| next.to_string()))),
    )
    .to_vec()
}

fn room_message() -> Vec<u8> {
    let message = to_raw_value(&json!("hello")).unwrap();
    let sent_at = 1_795_932_129_540;
    RoomMessage { room: "lobby".into(), from: ID.into(), sent_at, message }.to_payload().to_vec()
}

fn debug_info() -> Vec<u8> {
    let server = ServerInformation {
        api_version: "0.1.0",
        current_time: 1_795_932_129_540,
        request_duration: 0,
        server_name: "chat",
    };
    let requester = RequesterInformation {
        fingerprint: "xmpk4kvfz6iigv34cmefc4r4yg65umd3",
        id: "xmpk4kvfz6iigv34cmefc4r4yg65umd3-7ygh4vmbza-0",
        message_id: "7ygh4vmbza-0",
        received_params: &json!({ "action": "greet", "apiVersion": 1, "name": "Ada" }),
        remote_ip: "127.0.0.1",
    };
    format!("{{{}}}", debug_fields(&server, &requester)).into_bytes()
}

fn job() -> JobView {
    JobView {
        state: "done".to_owned(),
        node: Some("web-1".to_owned()),
        attempt: Some(1),
        progress: Some(json!({ "step": 3, "steps": 3 })),
        result: None,
        result_missing: Some("too_large".to_owned()),
    }
}

/// Each sample's file, and the bytes that it must have.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let remote = ConnectionDetails { transport: Some("websocket"), params: None, destroyed: Some(false), ..details() };
    let binary = FileMessage { content: "/w==".into(), encoding: Some("base64"), length: 1, ..file() };
    vec![
        ("welcome", encode(&Welcome::new("welcome", ID, 30_000, 65_536)).to_vec()),
        ("action-reply", splice(br#"{"text":"Hello, Ada!"}"#, "1").to_vec()),
        ("verb-done", verb_reply("2", &ReplyData::<()>::Done).to_vec()),
        ("verb-published", verb_reply("3", &ReplyData::<()>::Published).to_vec()),
        ("verb-details", verb_reply("5", &ReplyData::Data(&details())).to_vec()),
        ("verb-room", room_view(None)),
        ("verb-room-page", room_view(Some(MembersCursor { scan: 96, ..MembersCursor::default() }))),
        ("verb-file", splice(&encode(&file()), "7").to_vec()),
        ("verb-file-base64", splice(&encode(&binary), "7").to_vec()),
        ("file-push", encode(&FilePush::new(&file())).to_vec()),
        ("remote-details", encode(&remote).to_vec()),
        ("error", error_body(&error())),
        ("error-reply", splice(&error_body(&ActionError::not_found("there is no such room")), "4").to_vec()),
        ("error-without-id", without_id(&error_body(&ActionError::forbidden("no"))).to_vec()),
        ("room-message", room_message()),
        ("presence-join", encode(&PresenceEvent::new(PresenceChange::Join, "lobby", &[ID])).to_vec()),
        ("presence-leave", encode(&PresenceEvent::new(PresenceChange::Leave, "lobby", &[ID])).to_vec()),
        ("presence-leaves", encode(&PresenceEvent::new(PresenceChange::Leave, "lobby", &[ID, OTHER_ID])).to_vec()),
        ("away", encode(&AwayEvent::NOTICE).to_vec()),
        ("gap", encode(&GapEvent::new("lobby")).to_vec()),
        ("gap-of-tags", encode(&GapEvent::OF_TAGS).to_vec()),
        ("debug-info", debug_info()),
        ("job-accepted", encode(&AcceptedJob { id: "a".to_owned(), status: "/api/jobs/a".to_owned() }).to_vec()),
        ("job", encode(&job()).to_vec()),
    ]
}

#[test]
fn every_json_of_the_protocol_is_as_in_its_sample() {
    for (name, bytes) in samples() {
        let path = folder().join(format!("{name}.json"));
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, expected.trim_end(), "{}", path.display());
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}

#[test]
fn every_sample_belongs_to_a_type() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, samples().into_iter().map(|(name, _)| name.to_owned()).collect());
}

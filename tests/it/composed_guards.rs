//! Guards that ask for other guards, guards that a call can do without, and the parameters of a path.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use phalanx::RunningApp;
use phalanx::prelude::*;
use serde_json::json;

use crate::app::settings;
use crate::client::{Socket, get, request};

/// The caller's name, by a store of sessions that may be away. Works over both transports.
struct Named(String);

#[derive(Default)]
struct Store {
    is_away: AtomicBool,
}

impl FromContext for Named {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        if ctx.state::<Store>()?.is_away.load(SeqCst) {
            return Err(ActionError::of(ErrorKind::Unavailable, "the store is away"));
        }
        let header = ctx.caller().headers.get("x-user").and_then(|name| name.to_str().ok());
        match header {
            Some("banned") => Err(ActionError::forbidden("not you")),
            Some("expired") => Err(ActionError::new(ErrorKind::Unauthenticated, "session_ended", "sign in again")),
            Some(name) => Ok(Self(name.to_owned())),
            None => Err(ActionError::unauthenticated("sign in first")),
        }
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Store>();
    }
}

/// A named caller who may see the ticket of the path.
struct Owner(Named, u32);

impl FromContext for Owner {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let ticket: u32 = ctx.path("id")?;
        let named: Named = ctx.guard().await?;
        if ticket == 13 {
            return Err(ActionError::forbidden("not yours"));
        }
        Ok(Self(named, ticket))
    }

    fn require(requirements: &mut Requirements) {
        Named::require(requirements);
    }
}

#[input]
struct TicketId {
    id: u32,
}

#[output]
struct Seen {
    by: Option<String>,
    guard: Option<u32>,
    input: u32,
}

/// Reads a ticket; guests may as well.
#[action(name = "ticket", get = "/tickets/{id}", post = "/tickets/{id}", post = "/tickets")]
async fn ticket(ctx: Context, by: Option<Named>, input: TicketId) -> Result<Seen, ActionError> {
    Ok(Seen { by: by.map(|named| named.0), guard: ctx.path("id")?, input: input.id })
}

/// Changes a ticket.
#[action(name = "change", post = "/tickets/{id}/change", post = "/change")]
async fn change(_ctx: Context, owner: Owner, input: TicketId) -> Result<Seen, ActionError> {
    Ok(Seen { by: Some(owner.0.0), guard: Some(owner.1), input: input.id })
}

/// Changes a ticket by another action, within its call.
#[action(name = "changeFirst", post)]
async fn change_first(ctx: Context) -> Result<Seen, ActionError> {
    ctx.call::<change>(TicketId { id: 1 }).await
}

async fn start() -> RunningApp {
    let app = App::new("guards").state(Store::default());
    app.actions(actions![ticket, change, change_first]).start(settings()).await.unwrap()
}

#[tokio::test]
async fn an_optional_guard_is_none_for_unauthenticated_and_every_other_error_is_the_calls() {
    let node = start().await;
    let by = async |user: &str| request(node.addr(), "GET /api/tickets/7", &[user], b"").await;
    assert_eq!(by("x-user: eve").await.json()["by"], "eve");
    for guest in ["x-other: 1", "x-user: expired"] {
        let answer = by(guest).await;
        assert_eq!((answer.status, &answer.json()["by"]), (200, &json!(null)), "{guest}");
    }
    let banned = by("x-user: banned").await;
    assert_eq!((banned.status, banned.error_code().as_str()), (403, "forbidden"));
    node.node().state::<Store>().unwrap().is_away.store(true, SeqCst);
    for user in ["x-user: eve", "x-other: 1"] {
        let away = by(user).await;
        assert_eq!((away.status, away.error_code().as_str()), (503, "unavailable"), "a guest is not guessed");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_parameter_of_the_path_cannot_be_replaced_and_is_the_inputs_over_every_transport() {
    let node = start().await;
    let json_body = "content-type: application/json";
    let seen = async |line: &str, body: &str| {
        let answer = request(node.addr(), line, &[json_body, "x-user: eve"], body.as_bytes()).await;
        if answer.status == 200 { answer.json() } else { json!([answer.status, answer.error_code()]) }
    };
    let expected = json!({"by": "eve", "guard": 7, "input": 7});
    assert_eq!(seen("POST /api/tickets/7", r#"{"id":13}"#).await, expected);
    assert_eq!(seen("POST /api/tickets/7?id=13", "").await, expected);
    assert_eq!(seen("POST /api/tickets/7/change?id=13", r#"{"id":13}"#).await, expected);
    assert_eq!(seen("POST /api/tickets/13/change?id=7", r#"{"id":7}"#).await, json!([403, "forbidden"]));
    // The path has none: neither query nor body is taken for it.
    let without = json!({"by": "eve", "guard": null, "input": 7});
    assert_eq!(seen("POST /api/tickets?id=7", "").await, without);
    assert_eq!(seen("POST /api/change?id=7", r#"{"id":7}"#).await, json!([422, "invalid_input"]));
    assert_eq!(seen("POST /api/tickets/x/change", "").await, json!([422, "invalid_input"]));
    assert_eq!(seen("POST /api/changeFirst", "").await, json!({"by": "eve", "guard": 1, "input": 1}));
    let mut socket = Socket::connect(node.addr()).await;
    for id in ["7", "7.0"] {
        let frame = format!(r#"{{"event":"action","params":{{"action":"ticket","id":{id}}}}}"#);
        let reply = socket.request(&frame).await;
        assert_eq!((&reply["guard"], &reply["input"]), (&json!(7), &json!(7)), "{reply}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_state_that_a_guard_of_a_guard_needs_ends_the_boot() {
    let app = App::new("guards").actions(actions![ticket, change]);
    let refused = app.start(settings()).await.unwrap_err().to_string();
    for action in ["\"ticket\"", "\"change\""] {
        let named = refused.lines().any(|line| line.contains(action) && line.contains("::Store"));
        assert!(named, "{action} needs a state: {refused}");
    }
}

#[tokio::test]
async fn a_state_that_no_requirement_names_is_missed_by_the_call_alone() {
    /// Asks for a state that it did not name.
    #[action(get)]
    async fn forgetful(ctx: Context) -> Result<bool, ActionError> {
        Ok(ctx.state::<Store>()?.is_away.load(SeqCst))
    }
    let node = App::new("guards").actions(actions![forgetful]).start(settings()).await.unwrap();
    assert_eq!(get(node.addr(), "/api/forgetful").await.error_code(), "internal");
    node.stop().await;
}

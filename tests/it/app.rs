//! The application that the tests exercise, in this process, on a free port.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;

#[input]
#[derive(Clone)]
pub(crate) struct Echo {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<String>>,
}

/// Returns its input.
#[action(get = "/echo/{text}", get, post, delete)]
pub(crate) async fn echo(_ctx: Context, input: Echo) -> Result<Echo, ActionError> {
    Ok(input)
}

#[input]
pub(crate) struct Checked {
    #[validate(length(min = 3, max = 32))]
    string: String,
    #[validate(range(min = 1, max = 10))]
    number: Option<i64>,
}

/// Validates its input.
#[action(get, post)]
pub(crate) async fn checked(_ctx: Context, input: Checked) -> Result<Checked, ActionError> {
    Ok(input)
}

#[input]
pub(crate) struct Nap {
    ms: u64,
}

/// Returns after `ms` milliseconds.
#[action(get, deadline = "1500ms")]
pub(crate) async fn nap(_ctx: Context, input: Nap) -> Result<Nap, ActionError> {
    tokio::time::sleep(Duration::from_millis(input.ms)).await;
    Ok(input)
}

/// Panics, to be answered as `internal`.
#[action(get)]
pub(crate) async fn panics(_ctx: Context) -> Result<(), ActionError> {
    panic!("on purpose")
}

/// Available over HTTP only.
#[action(get, block(websocket))]
pub(crate) async fn http_only(_ctx: Context) -> Result<bool, ActionError> {
    Ok(true)
}

/// Returns plain text.
#[action(get)]
pub(crate) async fn text(_ctx: Context) -> Result<String, ActionError> {
    Ok("just text".into())
}

/// Callable by other actions only.
#[action(internal)]
pub(crate) async fn inner(_ctx: Context) -> Result<u8, ActionError> {
    Ok(7)
}

/// Calls another action.
#[action(get)]
pub(crate) async fn outer(ctx: Context) -> Result<Echo, ActionError> {
    ctx.call::<echo>(Echo { text: Some("inner".into()), number: None, list: None }).await
}

#[input]
pub(crate) struct File {
    file: Upload,
}

#[output]
pub(crate) struct Received {
    name: String,
    size: u64,
    bytes: String,
}

/// Receives a file and returns its content.
#[action(post)]
pub(crate) async fn upload(_ctx: Context, input: File) -> Result<Received, ActionError> {
    let bytes = tokio::fs::read_to_string(input.file.path()).await.map_err(ActionError::internal)?;
    Ok(Received { name: input.file.name().into(), size: input.file.size(), bytes })
}

/// Lets nobody pass.
pub(crate) struct Nobody;

impl FromContext for Nobody {
    async fn from_context(_ctx: &Context) -> Result<Self, ActionError> {
        Err(ActionError::forbidden("nobody may do that"))
    }
}

/// Refuses every upload before its body is read.
#[action(post, get)]
pub(crate) async fn refused(_ctx: Context, _: Nobody, _: File) -> Result<(), ActionError> {
    Ok(())
}

#[output]
pub(crate) struct Version {
    version: u32,
}

/// Version 1, reachable by GET ...
#[action(get)]
pub(crate) async fn thing(_ctx: Context) -> Result<Version, ActionError> {
    Ok(Version { version: 1 })
}

/// ... and version 2, reachable by POST.
#[action(name = "thing", version = 2, post = "/thing")]
pub(crate) async fn thing_2(_ctx: Context) -> Result<Version, ActionError> {
    Ok(Version { version: 2 })
}

/// Responds with a file.
#[action(get)]
pub(crate) async fn report(_ctx: Context) -> Result<Reply<Body>, ActionError> {
    Ok(Reply::new(Body::file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).status(StatusCode::ACCEPTED))
}

#[input]
pub(crate) struct Level {
    level: u8,
}

/// Sets the level of a connection.
#[remote]
pub(crate) async fn authorize(_ctx: Context, me: Connection, input: Level) -> Result<Level, ActionError> {
    me.set("level", input.level)?;
    Ok(input)
}

/// Admits only connections with a level to `vip`, and drops the message `/drop`.
async fn keep_door(joining: Joining) -> Result<(), ActionError> {
    if joining.room() == "vip" && joining.connection().get("level").is_none() {
        return Err(ActionError::forbidden("this room requires a level"));
    }
    Ok(())
}

async fn drop_commands(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    Ok(Some(publishing.into_message()).filter(|message| message.message.get() != "\"/drop\""))
}

/// Settings with free ports, so that tests run in parallel.
pub(crate) fn settings() -> Config {
    let mut config = Config::default();
    config.web.port = 0;
    config.web.bind = [127, 0, 0, 1].into();
    config.admin.bind = "127.0.0.1:0".into();
    config.websocket.messages_per_second = 0;
    config.rooms.start = vec!["lobby".into(), "vip".into(), "quiet".into()];
    config.rooms.presence = vec!["lobby".into()];
    config
}

/// Starts a node with all actions above.
pub(crate) async fn start(config: Config) -> RunningApp {
    App::new("test")
        .actions(actions![echo, checked, nap, panics, http_only, text, inner, outer, upload, thing, thing_2, report])
        .remotes(remotes![authorize])
        .before_join(keep_door)
        .before_publish(drop_commands)
        .start(config)
        .await
        .unwrap()
}

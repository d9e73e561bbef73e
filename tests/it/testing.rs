//! The test kit of applications, `phalanx::testing`: used as an author does, and shown to fail where a test is to fail.

mod clients;
mod clock;
mod ends;
mod jobs;
mod pair;
mod settings;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt;
use phalanx::prelude::*;
use phalanx::testing::{self, TestApp};

#[input]
#[derive(Clone)]
pub(crate) struct SetName {
    name: String,
}

/// Sets the name of this connection.
#[action(name = "setName")]
pub(crate) async fn set_name(_ctx: Context, me: Connection, input: SetName) -> Result<SetName, ActionError> {
    me.set("name", input.name.clone())?;
    Ok(input)
}

#[input]
pub(crate) struct Say {
    room: String,
    text: String,
}

/// Publishes in a room.
#[action(post = "/rooms/{room}/say")]
pub(crate) async fn say(ctx: Context, input: Say) -> Result<(), ActionError> {
    ctx.rooms().say(&input.room, &input.text).await
}

#[input]
#[derive(Clone)]
pub(crate) struct Find {
    shop: String,
    tags: Vec<String>,
    most: Option<u32>,
}

/// Returns its input.
#[action(get = "/shops/{shop}")]
pub(crate) async fn find(_ctx: Context, input: Find) -> Result<Find, ActionError> {
    Ok(input)
}

/// Signs in by a cookie.
#[action(name = "signIn", post = "/signIn", block(websocket))]
pub(crate) async fn sign_in(_ctx: Context, input: SetName) -> Result<Reply<String>, ActionError> {
    let cookie = Cookie::new("user", &input.name).max_age(Duration::from_secs(24 * 3600));
    Ok(Reply::new(input.name).cookie(cookie))
}

/// Returns the user of the cookie.
#[action(name = "whoAmI", get)]
pub(crate) async fn who_am_i(_ctx: Context, user: User, _: NoInput) -> Result<String, ActionError> {
    Ok(user.0)
}

pub(crate) struct User(String);

impl FromContext for User {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let of_socket = ctx.connection().and_then(|connection| connection.get("user")?.as_str().map(str::to_owned));
        let name = of_socket.or_else(|| ctx.cookies().get("user").map(str::to_owned));
        name.map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }
}

/// Panics.
#[action(get)]
pub(crate) async fn panics(_ctx: Context) -> Result<(), ActionError> {
    panic!("in an action, on purpose")
}

#[derive(Default)]
pub(crate) struct Done(pub(crate) AtomicUsize);

/// Counts.
#[task]
pub(crate) async fn count(_ctx: TaskContext, done: State<Arc<Done>>, _: NoInput) -> Result<(), ActionError> {
    done.0.fetch_add(1, SeqCst);
    Ok(())
}

/// Enqueues `count` for an hour later.
#[action(name = "countLater", post)]
pub(crate) async fn count_later(ctx: Context) -> Result<(), ActionError> {
    ctx.tasks().enqueue_in::<count>(NoInput::default(), Duration::from_secs(3600)).await?;
    Ok(())
}

/// Remembers the user of each socket, and refuses `mallory`.
async fn keep_door(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    match connecting.cookies().get("user") {
        Some("mallory") => Err(ActionError::forbidden("not you")),
        Some(user) => connecting.set("user", user).map(drop),
        None => Ok(()),
    }
}

pub(crate) fn app() -> App {
    App::new("kit")
        .actions(actions![set_name, say, find, sign_in, who_am_i, panics, count_later])
        .tasks(tasks![count])
        .state(Arc::<Done>::default())
        .before_connect(keep_door)
        .configure(|config| config.rooms.start = vec!["lobby".into()])
}

/// The message of the panic with which a test would fail, were this future its body.
pub(crate) async fn failure(body: impl Future<Output = ()>) -> String {
    let panic = AssertUnwindSafe(body).catch_unwind().await.expect_err("the test was to fail");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a message")
}

pub(crate) async fn start() -> TestApp {
    testing::start(app()).await
}

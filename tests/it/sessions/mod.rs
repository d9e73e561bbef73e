//! Sessions: of browsers and sockets, on one node and on two.

mod boot;
mod chromium;
mod closing;
mod cluster;
mod http;
mod processes;
mod races;
mod sites;
mod sockets;

use phalanx::axum::Router;
use phalanx::axum::routing::{get, post};
use phalanx::prelude::*;
use phalanx::testing::{TestApp, TestClient};
use phalanx::{Guard, Refused, http as types};
use serde_json::{Value, json};

#[session]
#[derive(Clone, Debug, PartialEq)]
struct Account {
    user: Option<String>,
    visits: u32,
}

impl SessionData for Account {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

fn account(user: &str, visits: u32) -> Account {
    Account { user: (!user.is_empty()).then(|| user.to_owned()), visits }
}

#[input]
struct User {
    #[serde(default)]
    user: String,
    #[serde(default)]
    how: String,
}

/// Signs in.
#[action(name = "signIn", post)]
async fn sign_in(ctx: Context, session: Session<Account>, input: User) -> Result<(), ActionError> {
    match input.how.as_str() {
        "forget" => session.remember(false),
        "large" => return session.start(account(&"x".repeat(17 * 1024), 0)).await,
        "crowded" => (0..32).try_for_each(|number| ctx.set_cookie(Cookie::new(format!("c{number}"), "1")))?,
        "twice" => session.start(account("first", 0)).await?,
        _ => {}
    }
    session.start(account(&input.user, 0)).await?;
    match input.how.as_str() {
        "error" => Err(ActionError::conflict("on purpose")),
        "panic" => panic!("on purpose"),
        "late" => std::future::pending().await,
        _ => Ok(()),
    }
}

/// Writes a session without a sign-in.
#[action(post)]
async fn set(_ctx: Context, session: Session<Account>, input: User) -> Result<(), ActionError> {
    session.set(account(&input.user, 7)).await
}

/// Ends the sessions of a user, its own among them, and writes as if there was still one.
#[action(post)]
async fn stubborn(ctx: Context, session: Session<Account>, input: User) -> Result<(), ActionError> {
    ctx.sessions().end_all(&input.user).await?;
    let _ = session.set(account(&input.user, 1)).await;
    session.set(account(&input.user, 2)).await
}

/// Counts a visit.
#[action(post)]
async fn visit(_ctx: Context, session: Session<Account>, _: NoInput) -> Result<u32, ActionError> {
    Ok(session.update(|account| account.visits += 1).await?.visits)
}

/// Gives the session a new id.
#[action(post)]
async fn renew(_ctx: Context, session: Session<Account>, _: NoInput) -> Result<(), ActionError> {
    session.renew().await
}

/// Signs out.
#[action(name = "signOut", post)]
async fn sign_out(_ctx: Context, session: Session<Account>, _: NoInput) -> Result<(), ActionError> {
    session.end().await
}

/// A user who is signed in.
struct Me(String);

impl FromContext for Me {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let account = ctx.guard::<Session<Account>>().await?.get();
        let user = account.and_then(|account| account.user.clone());
        user.map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }

    fn require(requirements: &mut Requirements) {
        Session::<Account>::require(requirements);
    }
}

/// The user, or nothing.
#[action(get = "/whoAmI")]
async fn who_am_i(_ctx: Context, me: Option<Me>, _: NoInput) -> Result<Option<String>, ActionError> {
    Ok(me.map(|me| me.0))
}

/// The user of the caller, who must be signed in.
#[action(get)]
async fn mine(ctx: Context, me: Me, _: NoInput) -> Result<Reply<Value>, ActionError> {
    let listed = ctx.sessions().of(&me.0).await?;
    let current = listed.iter().filter(|session| session.is_current).count();
    let public = types::HeaderValue::from_static("public, max-age=60");
    let reply = Reply::new(json!({ "user": me.0, "sessions": listed.len(), "current": current }));
    Ok(reply.header(types::header::CACHE_CONTROL, public))
}

/// Ends the other sessions of the caller.
#[action(name = "endOthers", post)]
async fn end_others(ctx: Context) -> Result<usize, ActionError> {
    ctx.sessions().end_others().await
}

/// Signs in by another action, and reads what that wrote.
#[action(post)]
async fn nested(ctx: Context, session: Session<Account>, _: NoInput) -> Result<Option<String>, ActionError> {
    ctx.call::<sign_in>(User { user: "nested".into(), how: String::new() }).await?;
    Ok(session.get().and_then(|account| account.user.clone()))
}

/// Streams the code of the error by which a late write is refused.
#[action(get, block(websocket))]
async fn stream(_ctx: Context, session: Session<Account>, _: NoInput) -> Result<Body, ActionError> {
    let chunk = futures_util::stream::once(async move {
        let refused = session.start(account("late", 0)).await.unwrap_err();
        Ok(refused.code().to_owned().into())
    });
    Ok(Body::stream("text/plain", chunk))
}

/// Uses no session.
#[action(get)]
async fn plain(_ctx: Context) -> Result<bool, ActionError> {
    Ok(true)
}

fn app() -> App {
    let routes =
        Router::new().route("/own", get(async |Guard(me): Guard<Me>| me.0)).route("/own/signIn", post(own_sign_in));
    let app = App::new("shop").session::<Account>().session::<Account>().router(routes);
    let app = app.actions(actions![sign_in, set, visit, renew, sign_out, who_am_i, mine, end_others, nested, stubborn]);
    app.actions(actions![stream, plain])
}

/// The handler of an own route that signs in.
async fn own_sign_in(Guard(session): Guard<Session<Account>>) -> Result<&'static str, Refused> {
    session.start(account("own", 0)).await?;
    Ok("done")
}

/// How often each fault is caused: so often, unless `ROUNDS` says otherwise.
fn rounds(default: usize) -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

const COOKIE: &str = "shop-session";

async fn sign_in_as(client: &TestClient, user: &str) {
    client.post("/api/signIn", json!({ "user": user })).await.ok();
}

async fn user_of(client: &TestClient) -> Value {
    client.get("/api/whoAmI").await.ok().json()["result"].clone()
}

/// A client that has that cookie alone.
fn with_id(app: &TestApp, id: &str) -> TestClient {
    let client = app.client();
    client.set_cookie(COOKIE, id);
    client
}

/// The values of `Set-Cookie` for the session.
fn set_cookies(response: &phalanx::testing::TestResponse) -> Vec<String> {
    let all = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned());
    all.filter(|value| value.contains("-session=")).collect()
}

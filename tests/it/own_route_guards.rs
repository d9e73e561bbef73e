//! Guards, cookies and errors in the handlers of an application's own routes.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use phalanx::axum::Router;
use phalanx::axum::routing::{get as on_get, post};
use phalanx::prelude::*;
use phalanx::{Guard, Refused, RunningApp};
use serde_json::json;

use crate::app::settings;
use crate::client::{get, request};

struct Visits(AtomicU64);

/// The caller's name, from a cookie.
struct Named(String);

impl FromContext for Named {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let name = ctx.cookies().get("name").map(str::to_owned);
        name.map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }
}

async fn visit(
    Guard(named): Guard<Named>,
    Guard(visits): Guard<State<Visits>>,
    Guard(node): Guard<Node>,
    Guard(ctx): Guard<Context>,
) -> Result<String, Refused> {
    let count = visits.0.fetch_add(1, SeqCst) + 1;
    ctx.set_cookie(Cookie::new("visits", count.to_string()))?;
    let id: u32 = ctx.path("id")?;
    ensure!(id != 13, ActionError::conflict("not today"));
    assert!(id != 14, "on purpose");
    Ok(format!("{} {id} {} {}", named.0, node.app(), ctx.path::<Option<u32>>("other")?.is_none()))
}

async fn guest(named: Guard<Option<Named>>, Guard(first): Guard<Context>, Guard(second): Guard<Context>) -> String {
    first.set_cookie(Cookie::new("shared", "1")).unwrap();
    second.set_cookie(Cookie::new("shared", "2")).unwrap();
    named.0.map_or_else(|| "guest".to_owned(), |named| named.0)
}

async fn start() -> RunningApp {
    let routes = Router::new().route("/visit/{id}", post(visit)).route("/guest", on_get(guest));
    App::new("routes").state(Visits(AtomicU64::new(0))).router(routes).start(settings()).await.unwrap()
}

#[tokio::test]
async fn a_handler_of_axum_has_guards_and_its_cookies_go_with_every_answer() {
    let node = start().await;
    let visit =
        async |id: &str, cookie: &str| request(node.addr(), &format!("POST /visit/{id}?other=1"), &[cookie], b"").await;
    let known = "cookie: sessionID=a; name=ann";
    let answer = visit("7", known).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"ann 7 routes true".as_slice()));
    for (id, status, count) in [("7", 200, 2), ("13", 409, 3), ("14", 500, 4), ("x", 422, 5)] {
        let answer = visit(id, known).await;
        let cookie = format!("visits={count}; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!((answer.status, answer.header("set-cookie")), (status, Some(cookie.as_str())), "{id}");
        let code = (status != 200).then(|| answer.json()["error"]["code"].clone());
        assert!(code.is_none_or(|code| code.is_string()));
    }
    let refused = visit("7", "cookie: sessionID=a").await;
    assert_eq!((refused.status, refused.json()["error"]["code"].clone()), (401, json!("unauthenticated")));
    node.stop().await;
}

#[tokio::test]
async fn the_guards_of_one_handler_share_one_call() {
    let node = start().await;
    let answer = request(node.addr(), "GET /guest", &["cookie: sessionID=a"], b"").await;
    assert_eq!(answer.body, b"guest");
    assert_eq!(answer.header("set-cookie"), Some("shared=2; Path=/; HttpOnly; SameSite=Lax"));
    assert_eq!(get(node.addr(), "/nothing").await.status, 404);
    node.stop().await;
}

//! Guards, cookies and errors in the handlers of an application's own routes.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use phalanx::axum::extract::{FromRequestParts, Request};
use phalanx::axum::routing::{get as on_get, post};
use phalanx::axum::{Router, body::Body as HttpBody};
use phalanx::prelude::*;
use phalanx::{Guard, Refused, RunningApp};
use serde_json::json;

use crate::app::settings;
use crate::client::{get, raw, request};

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

/// A guard by the path that the client sent.
struct Admin;

impl FromContext for Admin {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let path = ctx.head().path.unwrap_or_default();
        ensure!(path.starts_with("/admin/"), ActionError::forbidden("not here"));
        ctx.set_cookie(Cookie::new("seen", "1"))?;
        Ok(Self)
    }
}

/// Returns what its guards see.
async fn admin(_: Guard<Admin>, Guard(ctx): Guard<Context>) -> Result<String, Refused> {
    let head = ctx.head();
    let org: String = ctx.path("org")?;
    Ok(format!("{} {} {org} {}", head.path.unwrap(), head.query.unwrap(), ctx.path::<u32>("id")?))
}

/// Takes a body, after a guard.
async fn upload(_: Guard<Admin>, body: String) -> String {
    body
}

/// Answers a body that asks for its first guard when the response has begun.
async fn late(request: Request) -> HttpBody {
    let mut parts = request.into_parts().0;
    HttpBody::from_stream(futures_util::stream::once(async move {
        let Guard(ctx) = Guard::<Context>::from_request_parts(&mut parts, &()).await.unwrap();
        let refused = ctx.set_cookie(Cookie::new("late", "1")).unwrap_err();
        Ok::<_, std::io::Error>(refused.code().to_owned())
    }))
}

async fn start() -> RunningApp {
    let nested = Router::new().route("/{id}", on_get(admin)).route("/upload", post(upload));
    let routes = Router::new()
        .route("/visit/{id}", post(visit))
        .route("/guest", on_get(guest))
        .route("/late", on_get(late))
        .nest("/admin/{org}", nested);
    let mut settings = settings();
    settings.web.body_timeout = Duration::from_millis(300);
    App::new("routes").state(Visits(AtomicU64::new(0))).router(routes).start(settings).await.unwrap()
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

#[tokio::test]
async fn a_guard_sees_the_path_that_the_client_sent_in_nested_routers_too() {
    let node = start().await;
    let answer = get(node.addr(), "/admin/acme/7?a=1").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"/admin/acme/7 a=1 acme 7".as_slice()));
    node.stop().await;
}

#[tokio::test]
async fn a_cookie_goes_with_the_response_that_the_server_sends_instead() {
    let node = start().await;
    let head = "POST /admin/acme/upload HTTP/1.1\r\nhost: x\r\ncookie: sessionID=a\r\ncontent-length: 9\r\n\r\n{";
    let late = raw(node.addr(), head.as_bytes()).await;
    let cookie = Some("seen=1; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((late.status, late.header("set-cookie")), (408, cookie));
    assert_eq!(late.header("cache-control"), Some("private, no-cache"));
    node.stop().await;
}

#[tokio::test]
async fn a_guard_that_comes_after_the_response_accepts_no_cookie() {
    let node = start().await;
    let late = request(node.addr(), "GET /late", &["cookie: sessionID=a"], b"").await;
    assert!(String::from_utf8_lossy(&late.body).contains("response_started"), "{late:?}");
    assert_eq!(late.header("set-cookie"), None);
    node.stop().await;
}

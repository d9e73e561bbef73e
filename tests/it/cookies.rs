//! Cookies: read over every way in, and set with whatever is answered.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;
use serde_json::json;

use crate::app::settings;
use crate::client::{Response, Socket, get, request};

/// The cookies that a response sets, without that of the fingerprint.
fn cookies(response: &Response) -> Vec<&str> {
    let lines = response.head.lines().filter_map(|line| line.split_once(": "));
    let cookies = lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value);
    cookies.filter(|cookie| !cookie.starts_with("sessionID=")).collect()
}

const THEME: &str = "theme=dark; Path=/; HttpOnly; SameSite=Lax";

/// Sets a cookie as a guard, before anything else happens.
struct Themed;

impl FromContext for Themed {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.set_cookie(Cookie::new("theme", "light"))?;
        ctx.set_cookie(Cookie::new("theme", "dark"))?;
        Ok(Self)
    }
}

#[input]
struct How {
    how: String,
}

/// Answers in many ways, after a guard has set a cookie.
#[action(get = "/answers/{how}", post = "/answers/{how}", deadline = "300ms")]
async fn answers(ctx: Context, _: Themed, input: How) -> Result<Reply<bool>, ActionError> {
    match input.how.as_str() {
        "refusal" => Err(ActionError::conflict("not now")),
        "late" => std::future::pending().await,
        "panic" => panic!("on purpose"),
        "nested" => {
            ctx.call::<inner>(NoInput {}).await?;
            Ok(Reply::new(true))
        }
        "public" => {
            let public = phalanx::http::HeaderValue::from_static("public, max-age=60");
            Ok(Reply::new(true).header(phalanx::http::header::CACHE_CONTROL, public))
        }
        "reply" => Ok(Reply::new(true).cookie(Cookie::new("theme", "blue")).cookie(Cookie::new("own", "1"))),
        "halfBroken" => Ok(Reply::new(true).cookie(Cookie::new("own", "1")).cookie(Cookie::new("other", "a;b"))),
        "noCache" => {
            let no_cache = phalanx::http::HeaderValue::from_static("no-cache");
            Ok(Reply::new(true).header(phalanx::http::header::CACHE_CONTROL, no_cache))
        }
        "noStore" => {
            let no_store = phalanx::http::HeaderValue::from_static("max-age=0, No-Store");
            Ok(Reply::new(true).header(phalanx::http::header::CACHE_CONTROL, no_store))
        }
        "broken" => Ok(Reply::new(true).cookie(Cookie::new("own", "a;b"))),
        "unsafe" => ctx.set_cookie(Cookie::new("own", "a\r\nb")).map(|()| Reply::new(true)),
        _ => Ok(Reply::new(true)),
    }
}

/// Sets a cookie within another call.
#[action(internal)]
async fn inner(ctx: Context) -> Result<(), ActionError> {
    ctx.set_cookie(Cookie::new("inner", "1"))
}

/// Answers a file that does not exist.
#[action(get)]
async fn lost(_ctx: Context, _: Themed, _: NoInput) -> Result<Body, ActionError> {
    Ok(Body::file("/does/not/exist"))
}

/// Answers a stream, in which it is too late for a cookie.
#[action(get, block(websocket))]
async fn stream(ctx: Context) -> Result<Body, ActionError> {
    let chunk = futures_util::stream::once(async move {
        let refused = ctx.set_cookie(Cookie::new("late", "1")).unwrap_err();
        Ok(refused.code().to_owned().into())
    });
    Ok(Body::stream("text/plain", chunk))
}

/// Returns a cookie of the request.
#[action(get)]
async fn theme(ctx: Context) -> Result<Option<String>, ActionError> {
    Ok(ctx.cookies().get("theme").map(str::to_owned))
}

/// Keeps a cookie of the upgrade.
async fn keep_theme(ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    let theme = connecting.cookies().get("theme").map(|theme| json!(theme));
    assert_eq!(ctx.cookies().get("theme"), connecting.cookies().get("theme"));
    let refused = ctx.set_cookie(Cookie::new("theme", "light")).unwrap_err();
    assert_eq!(refused.code(), "cookie_needs_http");
    connecting.set("theme", theme.unwrap_or_default()).map(drop)
}

/// Returns the cookie that the connect hook has kept.
#[action]
async fn kept_theme(connection: Context) -> Result<Option<serde_json::Value>, ActionError> {
    Ok(connection.connection().and_then(|connection| connection.get("theme")))
}

async fn start(change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    change(&mut config);
    let app = App::new("cookies").before_connect(keep_theme);
    app.actions(actions![answers, inner, lost, stream, theme, kept_theme]).start(config).await.unwrap()
}

#[tokio::test]
async fn a_cookie_goes_with_whatever_is_answered() {
    let node = start(|_| {}).await;
    let check = async |how: &str, status: u16, expected: &[&str]| {
        let answer = get(node.addr(), &format!("/api/answers/{how}")).await;
        assert_eq!((answer.status, cookies(&answer)), (status, expected.to_vec()), "{how}");
        answer
    };
    check("value", 200, &[THEME]).await;
    check("refusal", 409, &[THEME]).await;
    check("late", 504, &[THEME]).await;
    check("panic", 500, &[THEME]).await;
    check("nested", 200, &[THEME, "inner=1; Path=/; HttpOnly; SameSite=Lax"]).await;
    let own = "own=1; Path=/; HttpOnly; SameSite=Lax";
    check("reply", 200, &["theme=blue; Path=/; HttpOnly; SameSite=Lax", own]).await;
    check("broken", 500, &[THEME]).await;
    check("halfBroken", 500, &[THEME]).await;
    let refused = check("unsafe", 500, &[THEME]).await;
    assert_eq!(refused.error_code(), "internal");
    let known = ["cookie: sessionID=known"];
    for (how, expected) in [
        ("public", "private, no-cache"),
        ("noCache", "private, no-cache"),
        ("noStore", "max-age=0, No-Store"),
        ("value", "private, no-cache"),
    ] {
        let answer = request(node.addr(), &format!("GET /api/answers/{how}"), &known, b"").await;
        assert_eq!((answer.header("cache-control"), cookies(&answer)), (Some(expected), vec![THEME]), "{how}");
    }
    let lost = get(node.addr(), "/api/lost").await;
    assert_eq!((lost.status, cookies(&lost)), (404, vec![THEME]));
    node.stop().await;
}

#[tokio::test]
async fn a_cookie_goes_with_the_refusal_of_a_body_that_does_not_come() {
    let node = start(|config| config.web.body_timeout = Duration::from_millis(200)).await;
    let head =
        "POST /api/answers/value HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let late = crate::client::raw(node.addr(), head.as_bytes()).await;
    assert_eq!((late.status, cookies(&late)), (408, vec![THEME]));
    let malformed = request(node.addr(), "POST /api/answers/value", &["content-type: application/json"], b"{").await;
    assert_eq!((malformed.status, cookies(&malformed)), (400, vec![THEME]));
    node.stop().await;
}

#[tokio::test]
async fn a_socket_cannot_be_given_a_cookie_and_no_answer_once_it_has_begun() {
    let node = start(|_| {}).await;
    let mut socket = Socket::connect(node.addr()).await;
    let refused = socket.request(r#"{"event":"action","params":{"action":"answers","how":"value"}}"#).await;
    assert_eq!(refused["error"]["code"], "cookie_needs_http");
    let late = get(node.addr(), "/api/stream").await;
    assert!(String::from_utf8_lossy(&late.body).contains("response_started"), "{late:?}");
    assert!(cookies(&late).is_empty());
    node.stop().await;
}

#[tokio::test]
async fn one_reader_serves_actions_and_connect_hooks() {
    let node = start(|_| {}).await;
    for (header, expected) in [
        ("cookie: a=1; theme=dark; theme=light", json!("dark")),
        ("cookie: a=1;theme=dark ;b=2", json!("dark")),
        ("cookie: theme=", json!("")),
        ("cookie: xtheme=dark; themes=dark", json!(null)),
        ("x-cookie: theme=dark", json!(null)),
    ] {
        let answer = request(node.addr(), "GET /api/theme", &[header], b"").await;
        assert_eq!(answer.json()["result"], expected, "{header}");
        let (name, value) = header.split_once(": ").unwrap();
        let mut socket = Socket::connect_with(node.addr(), "/ws", &[(name, value)]).await.ok().unwrap();
        let reply = socket.request(r#"{"event":"action","params":{"action":"kept_theme"}}"#).await;
        assert_eq!(reply["result"], expected, "{header}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_cookie_is_secure_as_the_boot_decides_and_never_as_a_request_says() {
    let theme = async |node: &RunningApp| {
        let proxied = ["x-forwarded-proto: https", "forwarded: proto=https"];
        let answer = request(node.addr(), "GET /api/answers/value", &proxied, b"").await;
        cookies(&answer)[0].to_owned()
    };
    let node = start(|config| config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    assert_eq!(theme(&node).await, THEME);
    node.stop().await;
    let node = start(|config| config.web.tls_in_front = true).await;
    assert_eq!(theme(&node).await, format!("{THEME}; Secure"));
    node.stop().await;
}

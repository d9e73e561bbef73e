//! Extensions and settings of an application: layers, guards, custom routes, initializers, origins, files, observers.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx::BoxError;
use phalanx::config::Config;
use phalanx::event::{CallEnd, Event};
use phalanx::prelude::*;
use phalanx::{Origin, RequestId, RunningApp, axum};
use serde_json::json;

use crate::app::{settings, start};
use crate::client::{Socket, get, post_json, request};

/// The signed-in caller, from a header or from an attribute of the socket.
pub(crate) struct SignedIn(String);

impl FromContext for SignedIn {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let header = ctx.caller().headers.get("x-user").and_then(|name| name.to_str().ok()).map(str::to_owned);
        let attribute = || Some(ctx.connection()?.get("user")?.as_str()?.to_owned());
        let name = header.or_else(attribute);
        name.map(Self).ok_or_else(|| ActionError::of(ErrorKind::Unauthenticated, "sign in first"))
    }
}

#[output]
pub(crate) struct Me {
    name: String,
}

/// Returns the name of the caller.
#[action(get)]
pub(crate) async fn whoami(_ctx: Context, me: SignedIn, _: NoInput) -> Result<Me, ActionError> {
    Ok(Me { name: me.0 })
}

#[input]
pub(crate) struct Order {
    item: String,
}

#[output]
pub(crate) struct Ordered {
    id: u64,
    item: String,
}

/// An error of the application, which becomes a conflict.
#[derive(Debug)]
pub(crate) struct SoldOut;

impl From<SoldOut> for ActionError {
    fn from(_: SoldOut) -> Self {
        ActionError::new(ErrorKind::Conflict, "sold_out", "there is none left")
    }
}

/// Orders an item.
#[action(post = "/orders")]
pub(crate) async fn order(_ctx: Context, count: State<AtomicU64>, input: Order) -> Result<Reply<Ordered>, SoldOut> {
    if input.item == "moon" {
        return Err(SoldOut);
    }
    let id = count.fetch_add(1, SeqCst);
    let reply = Reply::new(Ordered { id, item: input.item }).status(StatusCode::CREATED);
    Ok(reply.cookie(Cookie::new("last", id.to_string())))
}

/// Records every call, and answers one instead of its action.
struct Recorder(Arc<Mutex<Vec<String>>>, &'static str);

#[async_trait]
impl Layer for Recorder {
    async fn call(&self, mut call: Call, next: Next<'_>) -> Outcome {
        let name = call.action.name;
        self.0.lock().unwrap().push(format!("{} before {name}", self.1));
        if self.1 == "inner" && call.body().await?.get_str("item").as_deref() == Some("sun") {
            return Err(ActionError::forbidden("this item cannot be ordered"));
        }
        let outcome = next.run(call).await;
        self.0.lock().unwrap().push(format!("{} after {name}: {}", self.1, outcome.is_ok()));
        outcome
    }
}

/// Provides the application's state, and records its start and stop.
struct Shop(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Initializer for Shop {
    fn name(&self) -> &'static str {
        "shop"
    }

    async fn initialize(&self, boot: &mut Boot<'_>) -> Result<(), BoxError> {
        boot.definitions.states.insert(AtomicU64::new(7));
        Ok(())
    }

    async fn start(&self, node: &Node) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(format!("start {}", node.health().join(",")));
        Ok(())
    }

    async fn stop(&self, _node: &Node) {
        self.0.lock().unwrap().push("stop".into());
    }
}

async fn shop(change: impl FnOnce(&mut Config)) -> (RunningApp, Arc<Mutex<Vec<String>>>) {
    let mut config = settings();
    change(&mut config);
    let log = Arc::new(Mutex::new(Vec::new()));
    let routes = axum::Router::new()
        .route("/own", axum::routing::get(async |id: axum::Extension<RequestId>| format!("own {}", id.0)))
        .route("/own/panic", axum::routing::get(async || -> &'static str { panic!("on purpose") }))
        .route("/own/body", axum::routing::post(async |body: String| body.len().to_string()));
    let app = App::new("shop")
        .actions(actions![whoami, order])
        .layer(Recorder(log.clone(), "outer"))
        .layer(Recorder(log.clone(), "inner"))
        .initializer(Shop(log.clone()))
        .router(routes);
    (app.start(config).await.unwrap(), log)
}

#[tokio::test]
async fn layers_surround_every_call_and_may_answer_instead_of_it() {
    let (node, log) = shop(|_| {}).await;
    let addr = node.addr();
    let created = post_json(addr, "/api/orders", r#"{"item":"tea"}"#).await;
    assert_eq!((created.status, created.json()), (201, json!({ "id": 7, "item": "tea" })));
    assert!(created.head.contains("set-cookie: last=7"), "{}", created.head);
    let mut socket = Socket::connect(addr).await;
    let over_socket = socket.request(r#"{"event":"action","params":{"action":"order","item":"sun"}}"#).await;
    let over_http = post_json(addr, "/api/orders", r#"{"item":"sun"}"#).await;
    assert_eq!((over_http.status, &over_http.json()["error"]), (403, &over_socket["error"]));
    let refused = post_json(addr, "/api/orders", r#"{"item":"moon"}"#).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (409, "sold_out"));
    node.stop().await;
    let sun = ["outer before order", "inner before order", "outer after order: false"];
    let expected = [
        &[
            "start starting",
            "outer before order",
            "inner before order",
            "inner after order: true",
            "outer after order: true",
        ][..],
        &sun,
        &sun,
        &["outer before order", "inner before order", "inner after order: false", "outer after order: false", "stop"],
    ];
    assert_eq!(*log.lock().unwrap(), expected.concat());
}

#[tokio::test]
async fn a_guard_refuses_the_same_way_on_both_transports() {
    let (node, _) = shop(|_| {}).await;
    let addr = node.addr();
    let frame = r#"{"event":"action","params":{"action":"whoami"}}"#;
    let mut socket = Socket::connect(addr).await;
    let over_http = get(addr, "/api/whoami").await;
    let expected = json!({ "code": "unauthenticated", "message": "sign in first" });
    assert_eq!((over_http.status, &over_http.json()["error"]), (401, &expected));
    assert_eq!(socket.request(frame).await["error"], expected);
    let id = ConnectionId::parse(&socket.id()).unwrap();
    node.node().connections().apply(&id, "set", json!(["user", "ann"])).await.unwrap();
    assert_eq!(socket.request(frame).await["name"], "ann");
    assert_eq!(request(addr, "GET /api/whoami", &["x-user: bob"], b"").await.json()["name"], "bob");
}

#[tokio::test]
async fn custom_routes_get_the_same_ids_headers_and_limits() {
    let (node, _) = shop(|config| config.web.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let addr = node.addr();
    let own = request(addr, "GET /own", &["x-request-id: from-proxy"], b"").await;
    assert_eq!((own.status, own.body.as_slice()), (200, b"own from-proxy".as_slice()));
    assert_eq!(own.header("x-request-id"), Some("from-proxy"));
    assert_eq!(own.header("x-content-type-options"), Some("nosniff"));
    let panicked = get(addr, "/own/panic").await;
    assert_eq!((panicked.status, panicked.error_code().as_str()), (500, "internal"));
    let large = request(addr, "POST /own/body", &[], &vec![b'x'; 2 << 20]).await;
    assert_eq!(large.status, 413);
    assert_eq!(get(addr, "/api/whoami").await.status, 401, "actions keep their paths");
}

#[tokio::test]
async fn an_application_with_a_missing_state_or_a_duplicate_name_does_not_start() {
    let refused = App::new("x").actions(actions![order, whoami, whoami]).start(settings()).await.unwrap_err();
    let text = refused.to_string();
    for part in ["action \"order\" needs a state of type core::sync::atomic::", "\"whoami\" version 1 is defined twice"]
    {
        assert!(text.contains(part), "{text}");
    }
    let taken = start(settings()).await;
    let mut config = settings();
    config.web.port = taken.addr().port();
    let refused = App::new("x").start(config).await.unwrap_err();
    assert!(refused.to_string().contains(&taken.addr().to_string()), "{refused}");
}

#[tokio::test]
async fn other_origins_may_call_when_they_are_allowed() {
    let (node, _) = shop(|config| config.web.cors_origins = vec!["https://app.example".into()]).await;
    let addr = node.addr();
    let preflight = ["origin: https://app.example", "access-control-request-method: POST"];
    let allowed = request(addr, "OPTIONS /api/orders", &preflight, b"").await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    let options = request(addr, "OPTIONS /api/orders", &preflight[..1], b"").await;
    assert_eq!(options.header("allow"), Some("OPTIONS, POST"));
    assert_eq!(options.header("access-control-allow-origin"), Some("https://app.example"));
    let foreign = request(addr, "GET /own", &["origin: https://evil.example"], b"").await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (200, None));
    let (node, _) = shop(|_| {}).await;
    let closed = request(node.addr(), "GET /own", &["origin: https://app.example"], b"").await;
    assert_eq!(closed.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_browser_gets_its_cookie_once_and_behind_tls_a_secure_one() {
    let (node, _) = shop(|_| {}).await;
    let first = get(node.addr(), "/own").await;
    let cookie = first.header("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("sessionID=") && cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"));
    assert!(!cookie.contains("Secure") && first.header("strict-transport-security").is_none());
    let known = format!("cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(request(node.addr(), "GET /own", &[&known], b"").await.header("set-cookie"), None);
    let (node, _) = shop(|config| config.web.tls_in_front = true).await;
    let first = get(node.addr(), "/own").await;
    assert!(first.header("set-cookie").unwrap().contains("Secure"));
    assert!(first.header("strict-transport-security").is_some());
}

#[tokio::test]
async fn files_come_from_several_roots_and_from_nowhere_else() {
    let (one, two, outside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    std::fs::write(one.path().join("a.txt"), "from one").unwrap();
    std::fs::write(two.path().join("a.txt"), "from two").unwrap();
    std::fs::write(two.path().join("b c.txt"), "0123456789").unwrap();
    std::fs::create_dir(two.path().join("sub")).unwrap();
    std::fs::write(two.path().join("sub/index.html"), "<p>index").unwrap();
    std::os::unix::fs::symlink(outside.path(), one.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.txt"), one.path().join("secret.txt")).unwrap();
    let roots = vec![one.path().to_owned(), two.path().to_owned()];
    let (node, _) = shop(|config| config.paths.public = roots).await;
    let addr = node.addr();
    for (path, body) in [
        ("/a.txt", "from one"),
        ("/public/a.txt", "from one"),
        ("/b%20c.txt", "0123456789"),
        ("/sub/", "<p>index"),
        ("/sub", "<p>index"),
    ] {
        let answer = get(addr, path).await;
        assert_eq!((answer.status, String::from_utf8_lossy(&answer.body).as_ref()), (200, body), "{path}");
    }
    let secret = outside.path().join("secret.txt");
    for path in [
        "/secret.txt".to_owned(),
        "/link/secret.txt".to_owned(),
        "/link%2fsecret.txt".to_owned(),
        "/../secret.txt".to_owned(),
        "/%2e%2e/secret.txt".to_owned(),
        "/sub/..%2f..%2fetc/passwd".to_owned(),
        "/%00".to_owned(),
        "/a.txt%00.html".to_owned(),
        "/%ff".to_owned(),
        format!("/{}", secret.display()),
        format!("/{}", secret.display().to_string().replace('/', "%2f")),
    ] {
        let answer = get(addr, &path).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (404, "not_found"), "{path}");
    }
    let part = request(addr, "GET /b%20c.txt", &["range: bytes=2-4"], b"").await;
    assert_eq!(
        (part.status, part.header("content-range"), part.body.as_slice()),
        (206, Some("bytes 2-4/10"), b"234".as_slice())
    );
    assert_eq!(request(addr, "GET /b%20c.txt", &["range: bytes=20-"], b"").await.status, 416);
    let whole = get(addr, "/a.txt").await;
    let (tag, modified) = (whole.header("etag").unwrap().to_owned(), whole.header("last-modified").unwrap().to_owned());
    for header in [format!("if-none-match: {tag}"), format!("if-modified-since: {modified}")] {
        let unchanged = request(addr, "GET /a.txt", &[&header], b"").await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{header}");
    }
    let since = format!("if-modified-since: {modified}");
    let changed = request(addr, "GET /a.txt", &["if-none-match: \"other\"", &since], b"").await;
    let anew = request(addr, "GET /a.txt", &["cache-control: no-cache", &since], b"").await;
    assert_eq!((changed.status, anew.status), (200, 200));
    let head = request(addr, "HEAD /a.txt", &[], b"").await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("8"), 0));
    let post = request(addr, "POST /a.txt", &[], b"").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[tokio::test]
async fn answers_are_compressed_and_vary_by_accepted_encoding() {
    let node = start(settings()).await;
    let addr = node.addr();
    let path = format!("/api/echo?text={}", "x".repeat(5000));
    for encoding in ["gzip", "br"] {
        let packed = request(addr, &format!("GET {path}"), &[&format!("accept-encoding: {encoding}")], b"").await;
        assert_eq!(packed.header("content-encoding"), Some(encoding));
        assert!(packed.header("vary").unwrap().contains("accept-encoding") && packed.body.len() < 1000);
    }
    let plain = request(addr, &format!("GET {path}"), &["accept-encoding: gzip;q=0, identity"], b"").await;
    assert_eq!((plain.header("content-encoding"), plain.json()["text"].as_str().map(str::len)), (None, Some(5000)));
    let small = request(addr, "GET /api/echo?text=x", &["accept-encoding: gzip"], b"").await;
    assert_eq!(small.header("content-encoding"), None);
}

#[tokio::test]
async fn a_dropped_lock_is_free_for_the_next_caller() {
    let node = start(settings()).await;
    let locks = node.node().locks();
    let lease = Duration::from_secs(5);
    let guard = locks.try_lock("door", lease).await.unwrap().unwrap();
    assert!(locks.try_lock("door", lease).await.unwrap().is_none());
    let cache = node.node().cache();
    let refused = cache.save("door", &1, None).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Conflict, "locked"));
    cache.holding(&guard).save("door", &2, None).await.unwrap();
    let (first, waiting) = (guard.token(), locks.clone());
    let next = tokio::spawn(async move { waiting.lock("door", lease, lease).await });
    drop(guard);
    let next = next.await.unwrap().unwrap().expect("a lock that is dropped is free");
    assert!(next.token() > first && next.is_held());
    assert_eq!(cache.holding(&next).load::<u8>("door").await.unwrap().unwrap().value, 2);
}

/// Waits until its client disconnects.
#[action(get, cancel_on_disconnect)]
pub(crate) async fn wait_forever(_ctx: Context) -> Result<(), ActionError> {
    std::future::pending().await
}

#[tokio::test]
async fn observers_are_notified_of_every_call_that_ends_and_how() {
    let (sender, mut ended) = tokio::sync::mpsc::channel(8);
    let app = App::new("observed").actions(actions![whoami, order, wait_forever]).state(AtomicU64::new(7));
    let app = app.observe(move |event: &Event| {
        if let Event::ActionEnded { action, version, transport, outcome, took, .. } = event {
            sender.try_send((*action, *version, *transport, *outcome, *took < Duration::from_secs(60))).unwrap();
        }
    });
    let node = app.start(settings()).await.unwrap();
    post_json(node.addr(), "/api/orders", r#"{"item":"tea"}"#).await;
    assert_eq!(ended.recv().await.unwrap(), ("order", 1, Origin::Http, CallEnd::Answered, true));
    let mut socket = Socket::connect(node.addr()).await;
    socket.request(r#"{"event":"action","params":{"action":"whoami"}}"#).await;
    let refused = CallEnd::Refused(ErrorKind::Unauthenticated);
    assert_eq!(ended.recv().await.unwrap(), ("whoami", 1, Origin::Websocket, refused, true));
    socket.send(r#"{"event":"action","params":{"action":"wait_forever"}}"#).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    socket.close().await;
    assert_eq!(ended.recv().await.unwrap(), ("wait_forever", 1, Origin::Websocket, CallEnd::Cancelled, true));
}

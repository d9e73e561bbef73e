//! The share of each bound that one address may take. Addresses are simulated by a trusted proxy: the machine itself has
//! no share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::axum::Router;
use phalanx::axum::routing::post;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::app::{echo, settings, text, upload};
use crate::client::{Response, Socket, get, request};
use crate::cluster::until;

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(20);

const ONE: &str = "x-forwarded-for: 203.0.113.1";
const OTHER: &str = "x-forwarded-for: 203.0.113.2";

async fn start(change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    change(&mut config);
    let routes = Router::new().route("/own", post(async |body: String| body.len().to_string()));
    App::new("shares").actions(actions![echo, text, upload]).router(routes).start(config).await.unwrap()
}

/// Starts a request whose body does not come; returns once the node awaits it.
async fn awaited(addr: SocketAddr, path: &str, from: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\n{from}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: 9\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer));
    stream
}

fn refusal(answer: &Response) -> (u16, String, Option<&str>) {
    (answer.status, answer.error_code(), answer.header("retry-after"))
}

#[tokio::test]
async fn an_address_awaits_a_quarter_of_the_bodies() {
    let node = start(|config| config.web.max_waiting_bodies = 8).await;
    let addr = node.addr();
    let held = [awaited(addr, "/api/echo", ONE).await, awaited(addr, "/own", ONE).await];
    for path in ["/api/echo", "/own"] {
        let head = [ONE, "content-type: application/json", "content-length: 9"];
        let refused = timeout(SOON, request(addr, &format!("POST {path}"), &head, b"")).await.unwrap();
        assert_eq!(refusal(&refused), (429, "address_limit".into(), Some("1")), "{path}");
    }
    awaited(addr, "/api/echo", OTHER).await;
    assert_eq!(request(addr, "GET /api/text", &[ONE], b"").await.status, 200, "what needs no body goes on");
    drop(held);
    node.stop().await;
}

/// Requests that run until they are released.
#[derive(Clone)]
struct Held {
    gate: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
}

impl Held {
    async fn hold(&self) {
        self.inside.fetch_add(1, SeqCst);
        let _ = self.gate.acquire().await;
    }
}

/// Runs until it is released.
#[action(post)]
async fn hold(_ctx: Context, held: State<Held>, _: NoInput) -> Result<(), ActionError> {
    held.hold().await;
    Ok(())
}

#[tokio::test]
async fn an_address_runs_a_quarter_of_the_requests_although_their_bodies_come_later() {
    let held = Held { gate: Arc::new(Semaphore::new(0)), inside: Arc::default() };
    let mut config = settings();
    config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.web.max_requests = 8;
    config.web.resume_timeout = Duration::from_millis(100);
    let holds = held.clone();
    let own = post(async move |_: String| holds.hold().await);
    let app = App::new("shares").state(held.clone()).actions(actions![hold, text]);
    let node = app.router(Router::new().route("/own", own)).start(config).await.unwrap();
    let addr = node.addr();
    let mut late = awaited(addr, "/api/hold", ONE).await;
    let mut running = Vec::new();
    for _ in 0..7 {
        running.push(awaited(addr, "/own", ONE).await);
    }
    for stream in &mut running {
        stream.write_all(br#"{"a":"b"}"#).await.unwrap();
    }
    until("all run, most of them past the bound", SOON, async || held.inside.load(SeqCst) == 7).await;
    assert_eq!(request(addr, "GET /api/text", &[OTHER], b"").await.status, 200);
    assert_eq!(request(addr, "GET /api/text", &[ONE], b"").await.error_code(), "address_limit");
    let mut status = [0; 12];
    late.write_all(br#"{"a":"b"}"#).await.unwrap();
    timeout(SOON, late.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 429");
    held.gate.add_permits(7);
    for stream in &mut running {
        timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    until("the permits are free", SOON, async || request(addr, "GET /api/text", &[ONE], b"").await.status == 200).await;
    node.stop().await;
}

/// Takes more than the node's own bound.
#[action(post, raw_body, max_body = "128KiB")]
async fn large(_ctx: Context, body: RawBody, _: NoInput) -> Result<usize, ActionError> {
    Ok(body.len())
}

#[tokio::test]
async fn an_address_may_send_one_body_of_the_largest_that_an_action_takes() {
    let start = async |total: &str| {
        let mut config = settings();
        config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.web.max_body = "16KiB".parse().unwrap();
        config.web.max_upload = "16KiB".parse().unwrap();
        config.web.max_bodies_total = total.parse().unwrap();
        App::new("shares").actions(actions![large]).start(config).await
    };
    let node = start("256KiB").await.unwrap();
    let answer = request(node.addr(), "POST /api/large", &[ONE], &[b'x'; 100_000]).await;
    assert_eq!(answer.json()["result"], 100_000, "{answer:?}");
    node.stop().await;
    let refused = start("64KiB").await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains(r#"action "large": max_body is more than web.max_bodies_total"#), "{refused}");
}

#[tokio::test]
async fn an_address_opens_a_quarter_of_the_sockets_and_they_are_no_http_connections() {
    let node = start(|config| {
        config.websocket.max_connections = 8;
        config.web.max_connections = 4;
    })
    .await;
    let addr = node.addr();
    let connect = async |from: &str| Socket::connect_with(addr, "/ws", &[("x-forwarded-for", from)]).await;
    let mut held = Vec::new();
    for from in ["203.0.113.1", "203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2"] {
        held.push(connect(from).await.unwrap_or_else(|refused| panic!("{from}: {refused:?}")));
    }
    for from in ["203.0.113.1", "2001:db8::3", "::ffff:203.0.113.1"] {
        assert_eq!(connect(from).await.err().map(|refused| refused.status), Some(429), "{from}");
    }
    assert_eq!(get(addr, "/api/text").await.status, 200, "five sockets are open, and four connections may be");
    held.remove(0).close().await;
    node.stop().await;
}

#[tokio::test]
async fn the_smallest_bounds_let_one_in() {
    let node = start(|config| {
        config.web.max_connections = 1;
        config.web.max_upload = "64KiB".parse().unwrap();
        config.web.max_uploads_total = "64KiB".parse().unwrap();
        config.web.max_body = "32KiB".parse().unwrap();
        config.web.max_bodies_total = "32KiB".parse().unwrap();
    })
    .await;
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";
    let body = [head.as_bytes(), &vec![b'y'; 60_000], b"\r\n--b--\r\n"].concat();
    let multipart = "content-type: multipart/form-data; boundary=b";
    assert_eq!(request(node.addr(), "POST /api/upload", &[ONE, multipart], &body).await.status, 200);
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(30_000));
    let json = "content-type: application/json";
    assert_eq!(request(node.addr(), "POST /api/echo", &[ONE, json], text.as_bytes()).await.status, 200);
    node.stop().await;
}

/// An address of this machine that is not its loopback address, in the network of `local`, towards `other`.
pub(crate) fn own_address(local: &str, other: &str) -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(local).ok()?;
    socket.connect(other).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[tokio::test]
async fn an_address_opens_a_quarter_of_the_connections() {
    let Some(own) = own_address("0.0.0.0:0", "203.0.113.1:9") else { return };
    let node = start(|config| {
        config.web.bind = [0, 0, 0, 0].into();
        config.web.max_connections = 8;
    })
    .await;
    let addr = SocketAddr::new(own, node.addr().port());
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"HEAD /api/text HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        timeout(SOON, stream.read_exact(&mut [0; 12])).await.unwrap().unwrap();
        held.push(stream);
    }
    let mut third = TcpStream::connect(addr).await.unwrap();
    let closed = timeout(SOON, third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], addr.port())), "/api/text").await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_private_peer_that_forwards_has_no_share_and_is_logged_once() {
    // A network of machines has a private address of one family or the other.
    let own = [("0.0.0.0:0", "10.0.0.1:9"), ("[::]:0", "[fd00::1]:9")].map(|(local, other)| own_address(local, other));
    let is_private = |own: &IpAddr| match own {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    let Some(own) = own.into_iter().flatten().find(is_private) else { return };
    let node = Process::start("tour", &[("BIND", "[::]")]).await;
    let addr = SocketAddr::new(own, node.addr.port());
    for header in ["x-forwarded-for: 203.0.113.1", "x-real-ip: 203.0.113.1", "forwarded: for=203.0.113.1"] {
        assert_eq!(request(addr, "GET /api/status", &[header], b"").await.status, 200, "{header}");
    }
    let warning = "a private peer forwards requests";
    until("it is logged", SOON, async || node.stderr().contains(warning)).await;
    assert_eq!(node.stderr().matches(warning).count(), 1, "{}", node.stderr());
}

#[tokio::test]
async fn a_proxy_on_this_machine_is_logged_once_if_limits_count_its_clients_as_one() {
    let node = Process::start("tour", &[]).await;
    for client in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        let forwarded = format!("x-forwarded-for: {client}");
        assert_eq!(request(node.addr, "GET /api/limited", &[&forwarded], b"").await.status, 200, "{client}");
    }
    let warning = "a private peer forwards requests and is not in web.trusted_proxies";
    until("it is logged", SOON, async || node.stderr().contains(warning)).await;
    assert_eq!(node.stderr().matches(warning).count(), 1, "{}", node.stderr());
}

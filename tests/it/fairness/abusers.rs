//! The abusers: each takes all that one address gets, and goes on with it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx::config::{ByteSize, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::clients::Work;
use super::{SOON, Target, control};
use crate::client::RawSocket;
use crate::shares::own_address;

/// The abuser's address.
const FROM: &str = "x-forwarded-for: 203.0.113.66\r\n";

/// What it tries to take.
const COUNT: usize = 60;

/// The calls that it runs at once: a quarter of the 7/8 of `web.max_requests` that new requests get.
const CALLS: usize = 14;

/// The sockets that it gets.
const SOCKETS: usize = 20;

/// A pause of a client that was refused, or that does something again and again.
const PAUSE: Duration = Duration::from_millis(100);

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=b";
const PART: &str = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";

/// A kind of abuse.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Changes the settings of both nodes.
    pub(super) change: Arc<dyn Fn(&mut Config) + Send + Sync>,
    pub(super) abuser: fn(Target) -> Pin<Box<dyn Future<Output = Abuse>>>,
    /// The requests of the well-behaved client.
    pub(super) work: Work,
}

/// An abuser that has its share.
pub(super) struct Abuse {
    /// How much it got.
    pub(super) taken: String,
    pub(super) goes_on: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// All kinds. `public` is a folder with the files `large.txt` and `huge.bin`.
pub(super) fn rows(public: &Path) -> Vec<Row> {
    let none = |_: &mut Config| {};
    let files = {
        let public = public.to_owned();
        move |config: &mut Config| config.paths.public = vec![public.clone()]
    };
    vec![
        row("control: none of the node's", Work::Call, none, |at| Box::pin(control::take(at.other))),
        row(
            "connections",
            Work::Connect,
            |config| config.web.bind = [0, 0, 0, 0].into(),
            |at| Box::pin(connections(at.node)),
        ),
        row("calls of a slow action", Work::Call, none, |at| Box::pin(slow_calls(at.node))),
        row("responses that are not read", Work::Call, files.clone(), |at| Box::pin(unread_responses(at.node))),
        row("slow bodies", Work::Call, none, |at| Box::pin(slow_bodies(at.node, "/api/echo"))),
        row("slow bodies, an own route", Work::OwnRoute, none, |at| Box::pin(slow_bodies(at.node, "/own"))),
        row(
            "slow bodies, a guard with a pool",
            Work::Pooled,
            |config| config.web.max_waiting_bodies = 400,
            |at| Box::pin(slow_bodies_before_a_pool(at.node)),
        ),
        row("bytes of bodies", Work::Call, none, |at| {
            Box::pin(bytes(at.node, "/api/echo", JSON, "{\"text\":\"", 240 << 10))
        }),
        row("bytes of uploads", Work::Upload, none, |at| {
            Box::pin(bytes(at.node, "/api/upload", FORM, PART, 1900 << 10))
        }),
        row(
            "refused uploads",
            Work::Upload,
            |config| config.web.max_upload = ByteSize::mib(32),
            |at| Box::pin(refused_uploads(at.node)),
        ),
        row(
            "sockets",
            Work::Handshake,
            |config| config.websocket.upgrades_per_second = 0,
            |at| Box::pin(sockets(at.node)),
        ),
        row("frames at the limit of the rate", Work::Call, none, |at| Box::pin(frames_at_the_rate(at.node))),
        row("empty continuation frames", Work::Call, none, |at| Box::pin(empty_continuations(at.node))),
        row(
            "roomView of 100 members",
            Work::Call,
            |config| config.websocket.max_connections = 400,
            |at| Box::pin(large_answers(at.node, 100, vec!["quiet".into()], r#"{"event":"roomView","room":"quiet"}"#)),
        ),
        row(
            "detailsView of 99 rooms",
            Work::Call,
            |config| config.rooms.start = rooms(),
            |at| Box::pin(large_answers(at.node, SOCKETS, rooms(), r#"{"event":"detailsView"}"#)),
        ),
        row("files of 500 kB over sockets", Work::Call, files, |at| {
            Box::pin(large_answers(at.node, SOCKETS, Vec::new(), r#"{"event":"file","file":"large.txt"}"#))
        }),
        row("sockets that never read", Work::Call, none, |at| Box::pin(unread_messages(at.node))),
    ]
}

fn row(
    name: &'static str,
    work: Work,
    change: impl Fn(&mut Config) + Send + Sync + 'static,
    abuser: fn(Target) -> Pin<Box<dyn Future<Output = Abuse>>>,
) -> Row {
    Row { name, change: Arc::new(change), abuser, work }
}

/// The names of 99 rooms, as long as names may be.
fn rooms() -> Vec<String> {
    (0..99).map(|number| format!("{number:r>100}")).collect()
}

pub(super) fn abuse(taken: String, goes_on: impl Future<Output = Infallible> + 'static) -> Abuse {
    Abuse { taken, goes_on: Box::pin(goes_on) }
}

/// Keeps these things.
async fn keep<T>(_held: T) -> Infallible {
    std::future::pending().await
}

async fn send_head(addr: SocketAddr, line: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
    stream
}

/// The status of the next response.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut start = [0; 12];
    timeout(SOON, stream.read_exact(&mut start)).await.expect("it is answered").expect("it is not closed");
    std::str::from_utf8(&start[9..]).unwrap().parse().unwrap()
}

/// From an address of its own, since an address behind a proxy has no share of the connections: those are the proxy's.
async fn connections(addr: SocketAddr) -> Abuse {
    let Some(own) = own_address("0.0.0.0:0", "203.0.113.1:9") else {
        return abuse("this machine has no address".into(), keep(()));
    };
    let addr = SocketAddr::new(own, addr.port());
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = send_head(addr, "HEAD /api/echo", "").await;
        let is_open = timeout(SOON, stream.read_exact(&mut [0; 12])).await.expect("it is answered or closed").is_ok();
        held.extend(is_open.then_some(stream));
    }
    assert_eq!(held.len(), 128, "a quarter of web.max_connections");
    abuse("128 of 200".into(), async move {
        let _held = held;
        loop {
            sleep(PAUSE / 10).await;
            let _ = TcpStream::connect(addr).await;
        }
    })
}

/// Calls of 1.4 s, which a busy machine may end at their deadline of 1.5 s.
async fn slow_calls(addr: SocketAddr) -> Abuse {
    let call = async |stream: &mut TcpStream| {
        stream.write_all(format!("GET /api/nap?ms=1400 HTTP/1.1\r\nhost: x\r\n{FROM}\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(timeout(SOON, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
        }
        !answer.starts_with(b"HTTP/1.1 429")
    };
    let mut streams = Vec::new();
    for _ in 0..COUNT {
        streams.push(TcpStream::connect(addr).await.unwrap());
    }
    let ran = join_all(streams.iter_mut().map(call)).await.into_iter().filter(|ran| *ran).count();
    // On a busy machine the first may have ended when the last arrive.
    assert!((CALLS..2 * CALLS).contains(&ran), "a quarter of the permits for new requests, not {ran}");
    let again = streams.into_iter().map(move |mut stream| async move {
        loop {
            if !call(&mut stream).await {
                sleep(PAUSE).await;
            }
        }
    });
    abuse(format!("{ran} of {COUNT}, again and again"), all(again))
}

/// Takes a permit for each response that the kernel does not buffer.
async fn unread_responses(addr: SocketAddr) -> Abuse {
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..COUNT {
        let mut stream = send_head(addr, "GET /huge.bin", FROM).await;
        match status(&mut stream).await {
            200 => held.push(stream),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((held.len(), refused), (CALLS, COUNT - CALLS), "a quarter of the permits for new requests");
    abuse(format!("{CALLS} of {COUNT}"), keep(held))
}

async fn slow_bodies(addr: SocketAddr, path: &str) -> Abuse {
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..COUNT {
        let mut stream = slow_body(addr, path, FROM).await;
        match status(&mut stream).await {
            100 => held.push(stream),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((held.len(), refused), (16, COUNT - 16), "a quarter of web.max_waiting_bodies");
    abuse(format!("16 of {COUNT}, 10 bytes a second each"), trickle(held))
}

/// Of 50 addresses, so that all are held.
async fn slow_bodies_before_a_pool(addr: SocketAddr) -> Abuse {
    let mut held = Vec::new();
    for number in 0..50 {
        let mut stream = slow_body(addr, "/api/pooled", &format!("x-forwarded-for: 203.0.113.{number}\r\n")).await;
        assert_eq!(status(&mut stream).await, 100);
        held.push(stream);
    }
    abuse("50 from 50 addresses, a pool of 5".into(), trickle(held))
}

async fn slow_body(addr: SocketAddr, path: &str, from: &str) -> TcpStream {
    let headers = format!("{from}content-type: {JSON}\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n");
    send_head(addr, &format!("POST {path}"), &headers).await
}

async fn trickle(mut streams: Vec<TcpStream>) -> Infallible {
    loop {
        sleep(PAUSE).await;
        for stream in &mut streams {
            stream.write_all(b" ").await.expect("the node reads on");
        }
    }
}

/// Sends the starts of eight bodies, which are more than the share; those that are refused try again.
async fn bytes(addr: SocketAddr, path: &'static str, kind: &str, start: &str, size: usize) -> Abuse {
    let body = [start.as_bytes(), &vec![b'x'; size]].concat();
    let headers = format!("{FROM}content-type: {kind}\r\ncontent-length: {}\r\n", size * 2);
    let refused = Rc::new(Notify::new());
    let uploads = (0..8).map({
        let refused = refused.clone();
        move |_| {
            let (refused, headers, body) = (refused.clone(), headers.clone(), body.clone());
            async move {
                loop {
                    let mut stream = send_head(addr, &format!("POST {path}"), &headers).await;
                    let _ = stream.write_all(&body).await; // a refused one may be closed
                    let mut start = [0; 12];
                    stream.read_exact(&mut start).await.expect("it is not reset");
                    assert_eq!(&start, b"HTTP/1.1 429");
                    refused.notify_one();
                    sleep(PAUSE).await;
                }
            }
        }
    });
    let mut uploads = Box::pin(all(uploads));
    tokio::select! {
        never = &mut uploads => match never {},
        refused = timeout(SOON, refused.notified()) => refused.expect("they are more than the share"),
    }
    abuse(format!("what fits of 8, {} KiB each", size >> 10), uploads)
}

/// Keeps on sending bodies that a guard has refused.
async fn refused_uploads(addr: SocketAddr) -> Abuse {
    const LENGTH: usize = 30 << 20;
    let upload = async move || {
        let headers = format!("{FROM}content-type: {FORM}\r\ncontent-length: {LENGTH}\r\n");
        let mut stream = send_head(addr, "POST /api/refused", &headers).await;
        let piece = [b'x'; 32 << 10];
        let status = status(&mut stream).await;
        for _ in 0..LENGTH / piece.len() {
            if stream.write_all(&piece).await.is_err() {
                break; // as many linger as may
            }
            sleep(PAUSE / 5).await;
        }
        status
    };
    let headers = format!("{FROM}content-type: {FORM}\r\ncontent-length: 9\r\n");
    assert_eq!(status(&mut send_head(addr, "POST /api/refused", &headers).await).await, 403);
    let again = (0..COUNT).map(move |_| async move {
        loop {
            upload().await;
            sleep(PAUSE).await;
        }
    });
    abuse(format!("{COUNT}, 1.6 MB a second each"), all(again))
}

async fn sockets(addr: SocketAddr) -> Abuse {
    let mut held = Vec::new();
    for _ in 0..COUNT {
        held.extend(RawSocket::connect_with(addr, FROM).await.ok());
    }
    assert_eq!(held.len(), SOCKETS, "a quarter of websocket.max_connections");
    abuse(format!("{SOCKETS} of {COUNT}, and tries on"), async move {
        let _held = held;
        loop {
            sleep(PAUSE / 10).await;
            assert_eq!(RawSocket::connect_with(addr, FROM).await.err(), Some(429));
        }
    })
}

/// A socket that uses its burst, and then its rate.
async fn frames_at_the_rate(addr: SocketAddr) -> Abuse {
    let mut sockets = connect(addr, SOCKETS).await;
    let frame = RawSocket::masked(0x81, br#"{"event":"action","params":{"action":"echo","text":"again"}}"#);
    for socket in &mut sockets {
        for _ in 0..90 {
            socket.request(&frame).await;
        }
    }
    let again = sockets.into_iter().map(move |mut socket| {
        let frame = frame.clone();
        async move {
            loop {
                socket.request(&frame).await;
                sleep(PAUSE / 2).await;
            }
        }
    });
    abuse(format!("{SOCKETS} sockets, 20 a second each"), all(again))
}

/// Sockets that the node closes after some hundred milliseconds, and that are back at once.
async fn empty_continuations(addr: SocketAddr) -> Abuse {
    let flood = RawSocket::masked(0x00, b"").repeat(10_000);
    let again = (0..SOCKETS).map(move |_| {
        let flood = flood.clone();
        async move {
            loop {
                if let Ok(mut socket) = RawSocket::connect_with(addr, FROM).await {
                    let _ = socket.writer.write_all(&RawSocket::masked(0x01, b"{")).await;
                    while socket.writer.write_all(&flood).await.is_ok() {}
                } else {
                    sleep(PAUSE).await; // its last connection is not closed yet, or it comes back too often
                }
            }
        }
    });
    abuse(format!("{SOCKETS} sockets, closed and back"), all(again))
}

/// Asks for large answers as often as the rate allows.
async fn large_answers(addr: SocketAddr, members: usize, rooms: Vec<String>, frame: &'static str) -> Abuse {
    let mut sockets = connect(addr, members).await;
    for socket in &mut sockets {
        for room in &rooms {
            let join = format!(r#"{{"event":"roomAdd","room":"{room}"}}"#);
            while !is_ok(&socket.request(&RawSocket::masked(0x81, join.as_bytes())).await) {
                sleep(PAUSE).await;
            }
        }
    }
    let frame = RawSocket::masked(0x81, frame.as_bytes());
    let size = loop {
        let answer = sockets[0].request(&frame).await;
        if is_ok(&answer) {
            break answer.len();
        }
        sleep(PAUSE).await;
    };
    let idle = sockets.split_off(SOCKETS);
    let again = sockets.into_iter().map(move |mut socket| {
        let frame = frame.clone();
        async move {
            loop {
                if !is_ok(&socket.request(&frame).await) {
                    sleep(PAUSE).await;
                }
            }
        }
    });
    abuse(format!("{SOCKETS} sockets, {size} bytes each"), async move {
        let _idle = idle;
        all(again).await
    })
}

/// Members of a room that do not read; one more publishes large messages to them. They are back when they are closed.
async fn unread_messages(addr: SocketAddr) -> Abuse {
    let join = RawSocket::masked(0x81, br#"{"event":"roomAdd","room":"quiet"}"#);
    let ping = RawSocket::masked(0x89, b"");
    let say = format!(r#"{{"event":"say","room":"quiet","message":"{}"}}"#, "x".repeat(60_000));
    let say = RawSocket::masked(0x81, say.as_bytes());
    let publisher = connect(addr, 1).await.pop();
    let member = move || {
        let (join, ping) = (join.clone(), ping.clone());
        async move {
            loop {
                let Ok(mut socket) = RawSocket::connect_with(addr, FROM).await else {
                    sleep(PAUSE).await;
                    continue;
                };
                socket.request(&join).await;
                while socket.writer.write_all(&ping).await.is_ok() {
                    sleep(PAUSE).await;
                }
            }
        }
    };
    let publish = async move {
        let mut socket = publisher.expect("one");
        loop {
            socket.request(&say).await;
            sleep(PAUSE / 2).await;
        }
    };
    abuse(format!("{} members, 1.2 MB a second each", SOCKETS - 1), async move {
        tokio::select! {
            never = publish => never,
            never = all((1..SOCKETS).map(|_| member())) => never,
        }
    })
}

async fn connect(addr: SocketAddr, count: usize) -> Vec<RawSocket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(RawSocket::connect_with(addr, FROM).await.expect("it has its share"));
    }
    sockets
}

/// Looks at the start only: to search half a megabyte would cost more than the node's work for it.
fn is_ok(answer: &[u8]) -> bool {
    !answer.starts_with(b"{\"error\":")
}

/// Runs all of these, which do not end.
async fn all(abusers: impl Iterator<Item = impl Future<Output = Infallible>>) -> Infallible {
    join_all(abusers).await.pop().expect("there are some")
}

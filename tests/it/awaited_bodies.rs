//! The cost of bodies that are awaited: the memory of the node, and the time until a request runs on with its body.

use std::io::ErrorKind::WouldBlock;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx::prelude::*;
use phalanx_testkit::{Process, print};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::app::{nap, settings, text};
use crate::cluster::until;

/// A limit for every wait; no figure.
const SOON: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

/// Starts a request, and returns it if the node awaits its body.
async fn awaited(addr: SocketAddr, path: &str, length: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    answer.starts_with(b"HTTP/1.1 100").then_some(stream)
}

/// With 52 KiB each all of them are held, and just fit; with a byte less than they announce they do not, and some are
/// refused. Then the allocator keeps some of the memory of refused ones, so that case is measured only, with fewer of them.
#[tokio::test]
async fn memory_of_5000_awaited_bodies_is_that_of_the_bound_and_a_fifth_at_most() {
    const BOUND: u64 = 256 << 20;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let body = [br#"{"text":""#.as_slice(), &vec![b'x'; MIB]].concat();
    for (bodies, size, limit) in [(5_000, 52 << 10, Some(BOUND * 6 / 5)), (300, MIB - 1, None)] {
        let node = Process::start("tour", &[("RUST_LOG", "warn")]).await;
        let mut uploads = Vec::new();
        for _ in 0..bodies {
            uploads.push(awaited(node.addr, "/api/echo", MIB).await.expect("the node awaits it"));
        }
        let without = node.resident().unwrap();
        let grown = || node.resident().unwrap().saturating_sub(without);
        let (mut most, mut held) = (0, Vec::new());
        for (number, mut upload) in uploads.into_iter().enumerate() {
            let (mut reader, mut writer) = upload.split();
            let mut byte = [0; 1];
            tokio::select! {
                sent = writer.write_all(&body[..size]) => if sent.is_ok() { held.push(upload) },
                _ = reader.peek(&mut byte) => {} // it is refused
            }
            if number % 20 == 0 {
                most = most.max(grown());
            }
        }
        // The allocator may have had some of it before.
        let expected = BOUND.min((size * bodies) as u64) * 98 / 100;
        until("the node has read them", SOON, async || grown() >= expected).await;
        most = most.max(grown());
        let sent = held.len();
        held.retain(|upload| matches!(upload.try_read(&mut [0]), Err(error) if error.kind() == WouldBlock));
        let mib = |bytes: u64| bytes / MIB as u64;
        print(format_args!(
            "{bodies} awaited bodies, {} KiB each: {} are held, {} MiB of memory, and {} for their connections",
            size >> 10,
            held.len(),
            mib(most),
            mib(without)
        ));
        if let Some(limit) = limit {
            assert_eq!((sent, held.len()), (bodies, bodies), "none is refused");
            assert!(most <= limit, "{} MiB is more than {} and a fifth", mib(most), mib(BOUND));
        }
    }
}

/// The moment at which the last body was there.
#[derive(Clone, Default)]
struct LastBody(Arc<Mutex<Option<Instant>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for LastBody {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        struct IsBody(bool);
        impl Visit for IsBody {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "a body has come";
            }
        }
        let mut is_body = IsBody(false);
        event.record(&mut is_body);
        if is_body.0 {
            *self.0.lock().unwrap() = Some(Instant::now());
        }
    }
}

/// The time since the body was there, at the moment at which the call runs on.
struct Resumed(Duration);

impl FromContext for Resumed {
    const AFTER_BODY: bool = true;

    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let last = State::<LastBody>::from_context(ctx).await?;
        let at = last.0.lock().unwrap().take();
        at.map(|at| Self(at.elapsed())).ok_or_else(|| ActionError::not_found("no body has come"))
    }
}

#[input]
struct Ignored {}

/// Returns the nanoseconds between the end of its body and its permit to run on.
#[action(post)]
async fn resumed(_ctx: Context, resumed: Resumed, _: Ignored) -> Result<u64, ActionError> {
    Ok(resumed.0.as_nanos() as u64)
}

/// The node takes both times itself, so the load of the machine and the client's own time do not count.
#[tokio::test]
async fn a_request_with_its_body_runs_on_within_a_millisecond_beside_thousands_of_heads() {
    // As many as a debug build answers beside enough heads, and as many as the figure demands.
    const UPLOADS: usize = if cfg!(debug_assertions) { 200 } else { 2_000 };
    const HEADS: usize = if cfg!(debug_assertions) { 2 } else { 9 };
    let (started, addr) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let node = std::thread::spawn(move || {
        let last = LastBody::default();
        // With one subscriber, tracing asks that of the thread which comes first whether an event is wanted.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let _guard = tracing_subscriber::registry().with(last.clone()).set_default();
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut config = settings();
            config.web.max_requests = 64;
            let app = App::new("resumed").state(last).actions(actions![nap, text, resumed]);
            let node = app.start(config).await.unwrap();
            started.send(node.addr()).unwrap();
            let _ = stopped.await;
        });
    });
    let addr = addr.await.unwrap();
    let (heads, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let others = std::thread::spawn({
        let (heads, ends) = (heads.clone(), ends.clone());
        move || {
            let others = (0..40 + HEADS).map(|number| {
                // Most hold most of the 56 permits that new requests get.
                let (path, at_once) = if number < 40 { ("nap?ms=25", 1) } else { ("text", 10) };
                repeat(addr, path, at_once, heads.clone(), ends.clone())
            });
            Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(futures_util::future::join_all(others));
        }
    });
    let begun = Instant::now();
    let mut waits = Vec::new();
    while waits.len() < UPLOADS {
        let Some(mut upload) = awaited(addr, "/api/resumed", 2).await else { continue };
        upload.write_all(b"{}").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(timeout(SOON, upload.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, result) = answer.split_once("{\"result\":").unwrap();
        waits.push(Duration::from_nanos(result.trim_end_matches('}').parse().unwrap()));
    }
    let rate = heads.load(Relaxed) as f64 / begun.elapsed().as_secs_f64();
    ends.store(true, Relaxed);
    others.join().unwrap();
    stop.send(()).unwrap();
    node.join().unwrap();
    waits.sort_unstable();
    let (p50, p99) = (waits[UPLOADS / 2], waits[UPLOADS * 99 / 100]);
    print(format_args!(
        "a body is there until its call runs on, beside {rate:.0} heads a second: p50 {p50:?}, p99 {p99:?}"
    ));
    // A debug build runs beside other tests, which take the processor from it for longer than that.
    let figure = if cfg!(debug_assertions) { p50 } else { p99 };
    assert!(figure <= Duration::from_millis(1), "{figure:?}");
}

/// Sends the same request again and again, some at once every 8 ms, and counts the responses.
async fn repeat(addr: SocketAddr, path: &str, at_once: usize, heads: Arc<AtomicU64>, ends: Arc<AtomicBool>) {
    let requests = format!("GET /api/{path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(at_once);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut read = Vec::new();
    while !ends.load(Relaxed) {
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut count = 0;
        while count < at_once || !read.is_empty() {
            assert_ne!(timeout(SOON, stream.read_buf(&mut read)).await.unwrap().unwrap(), 0);
            // A response ends with its JSON.
            if read.ends_with(b"}") {
                count += read.windows(9).filter(|part| part == b"HTTP/1.1 ").count();
                read.clear();
            }
        }
        heads.fetch_add(at_once as u64, Relaxed);
        sleep(Duration::from_millis(8)).await;
    }
}

//! One client of each kind that takes more than it pays for, beside a well-behaved one at another address, which gets
//! every answer.
//!
//! Two nodes run, each in a thread of its own: the abuser has one of them, and the well-behaved client sends its
//! requests to both in turn. So other load of the machine, the abuser's own program included, affects both latencies
//! alike, and their ratio is what the node itself lets one client do to another. A row has several windows, and its
//! ratio is their median: other load that comes and goes spoils some of them only. Debug builds on busy machines print
//! it; `just fairness` limits it in a release build, by `FAIRNESS_LIMIT`, keeps the cores awake meanwhile, and gives each
//! node a core of its own.
//! `FAIRNESS_ROW` chooses rows by a part of their name.
//!
//! The first row is the control: its client never speaks to the node, but to another program in the node's thread. Its
//! ratio is that of the machine.

mod abusers;
mod awake;
mod clients;
mod control;
mod cores;

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::axum::Router;
use phalanx::axum::routing::post;
use phalanx::config::{ByteSize, Config};
use phalanx::prelude::*;
use phalanx_testkit::print;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use self::abusers::Row;
use self::awake::Awake;
use self::clients::Neighbour;
use self::cores::Cores;
use crate::app::{echo, nap, refused, settings, upload};

/// A limit for every wait; no figure.
const SOON: Duration = Duration::from_secs(20);

/// The windows of one row, and the pairs of requests in each. A debug build has no ratio to limit: it proves that the abuser gets
/// its share, and its neighbour every answer.
const WINDOWS: usize = if cfg!(debug_assertions) { 1 } else { 9 };
const PAIRS: usize = if cfg!(debug_assertions) { 40 } else { 1000 };

/// A window ends after this time, with at least twenty pairs: neighbours of an unfair node wait for long.
const WINDOW_TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 10 });

/// A pool of database connections, five of them.
struct Pool(Semaphore);

/// A connection of the pool, which is taken once the body is there.
struct Lent;

impl FromContext for Lent {
    const AFTER_BODY: bool = true;

    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let pool = State::<Pool>::from_context(ctx).await?;
        let lent = pool.0.acquire().await.map_err(ActionError::internal)?;
        sleep(Duration::from_millis(1)).await; // a query
        drop(lent);
        Ok(Self)
    }
}

#[input]
struct Note {
    text: String,
}

/// Notes a text with a connection of the pool.
#[action(post)]
async fn pooled(_ctx: Context, _: Lent, input: Note) -> Result<usize, ActionError> {
    Ok(input.text.len())
}

/// Small bounds, so that few connections reach them. The share of an address is a quarter.
fn row_settings() -> Config {
    let mut config = settings();
    config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.web.body_timeout = Duration::from_secs(600); // a row of a busy machine takes more than the default minute
    config.web.max_requests = 64;
    config.web.max_waiting_bodies = 64;
    config.web.max_connections = 512;
    config.web.max_bodies_total = ByteSize::mib(4);
    config.web.max_upload = ByteSize::mib(8);
    config.web.max_uploads_total = ByteSize::mib(32);
    config.websocket.max_connections = 80;
    config.websocket.messages_per_second = 20;
    config.websocket.message_burst = 100;
    config
}

/// What an abuser may connect to.
#[derive(Clone, Copy, Debug)]
struct Target {
    node: SocketAddr,
    /// A program in the node's thread that is none of the node's.
    other: SocketAddr,
}

/// A node in a thread of its own.
struct OwnNode {
    target: Target,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Duration>,
}

/// How long the calling thread has run on a processor, where the kernel counts that.
fn processor_time() -> Duration {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counts.split(' ').next().and_then(|count| count.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

impl OwnNode {
    /// Starts the first or the second of a row, on its core.
    async fn start(row: &Row, which: usize, cores: Option<Cores>) -> Self {
        let (started, target) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let change = row.change.clone();
        let thread = std::thread::spawn(move || {
            if let Some(cores) = cores {
                cores.move_to(which);
            }
            // Its threads for files run where the kernel wants them, as in any program.
            let unbound = move || cores.iter().for_each(|cores| cores.release());
            let runtime = Builder::new_current_thread().enable_all().on_thread_start(unbound).build().unwrap();
            runtime.block_on(async {
                let mut config = row_settings();
                change(&mut config);
                let routes = Router::new().route("/own", post(async |body: String| body.len().to_string()));
                let app = App::new("fairness").state(Pool(Semaphore::new(5))).router(routes);
                let app = app.actions(actions![echo, nap, upload, refused, pooled]);
                let node: RunningApp = app.start(config).await.unwrap();
                let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, node.addr().port()));
                started.send(Target { node: addr, other: other.local_addr().unwrap() }).unwrap();
                tokio::select! {
                    never = control::serve(other) => match never {},
                    _ = stopped => {}
                }
                // Not `node.stop()`: it would wait for what the abuser holds.
                processor_time()
            })
        });
        Self { target: target.await.unwrap(), stop, thread }
    }

    /// Stops it; returns how long it has run on a processor.
    fn stop(self) -> Duration {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// An abuser in a thread of its own.
struct OwnAbuser {
    /// How much it got.
    taken: String,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl OwnAbuser {
    /// Starts one; returns when it has taken what it gets.
    async fn start(row: &Row, target: Target) -> Self {
        let (ready, taken) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let abuser = row.abuser;
        let thread = std::thread::spawn(move || {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let abuse = abuser(target).await;
                ready.send(abuse.taken).unwrap();
                tokio::select! {
                    never = abuse.goes_on => match never {},
                    _ = stopped => {}
                }
            });
        });
        let taken = timeout(SOON, taken).await.expect("it gets its share in time").expect("and what it expects");
        Self { taken, stop, thread }
    }

    /// Stops it; a failed assertion of the abuser is a failure of the test.
    fn stop(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}

/// The latencies of one window: the median and the 99th percentile, alone and beside the abuser.
struct Window {
    p50: [Duration; 2],
    p99: [Duration; 2],
}

impl Window {
    /// Measures on the core of each node for half of the time.
    async fn measure(alone: &mut Neighbour, beside: &mut Neighbour, cores: Option<Cores>) -> Self {
        let mut times = [Vec::with_capacity(PAIRS), Vec::with_capacity(PAIRS)];
        for half in 0..2 {
            if let Some(cores) = cores {
                cores.move_to(half);
            }
            Self::measure_half(alone, beside, &mut times).await;
        }
        if let Some(cores) = cores {
            cores.release();
        }
        let [p50, p99] = [50, 99].map(|percent| times.each_mut().map(|times| percentile(times, percent)));
        Self { p50, p99 }
    }

    async fn measure_half(alone: &mut Neighbour, beside: &mut Neighbour, times: &mut [Vec<Duration>; 2]) {
        let ends = Instant::now() + WINDOW_TIME / 2;
        for pair in 0..PAIRS / 2 {
            if pair >= 10 && Instant::now() > ends {
                break;
            }
            // In turn the first of a pair.
            for which in [pair % 2, 1 - pair % 2] {
                let neighbour = if which == 0 { &mut *alone } else { &mut *beside };
                let started = Instant::now();
                neighbour.request().await;
                times[which].push(started.elapsed());
            }
        }
    }

    fn ratio(&self) -> f64 {
        self.p99[1].as_secs_f64() / self.p99[0].as_secs_f64()
    }
}

/// Measures a row; returns its line of the table and the median of the ratios of its 99th percentiles.
async fn measure(row: &Row, cores: Option<Cores>) -> (String, f64) {
    let started = Instant::now();
    let (quiet, abused) = (OwnNode::start(row, 0, cores).await, OwnNode::start(row, 1, cores).await);
    let mut alone = Neighbour::connect(quiet.target.node, row.work).await;
    let mut beside = Neighbour::connect(abused.target.node, row.work).await;
    for _ in 0..20 {
        alone.request().await;
        beside.request().await;
    }
    let abuser = OwnAbuser::start(row, abused.target).await;
    let taken = abuser.taken.clone();
    let mut windows = Vec::with_capacity(WINDOWS);
    for _ in 0..WINDOWS {
        windows.push(Window::measure(&mut alone, &mut beside, cores).await);
    }
    abuser.stop();
    let without = quiet.stop();
    let more = abused.stop().saturating_sub(without).as_secs_f64() / started.elapsed().as_secs_f64();
    windows.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
    let (least, most) = (windows[0].ratio(), windows[WINDOWS - 1].ratio());
    let median = &windows[WINDOWS / 2];
    let (Window { p50, p99 }, ratio) = (median, median.ratio());
    let line = format!(
        "{:<34} {:<34} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?} {ratio:>5.2} {least:>5.2}-{most:<5.2} {:>4.0}%",
        row.name,
        taken,
        p50[0],
        p50[1],
        p99[0],
        p99[1],
        more * 100.0,
    );
    (line, ratio)
}

#[tokio::test]
async fn a_client_that_takes_all_it_can_leaves_the_others_what_they_need() {
    let limit: Option<f64> = std::env::var("FAIRNESS_LIMIT").ok().map(|limit| limit.parse().expect("a number"));
    print(format_args!(
        "{:<34} {:<34} {:>9} {:>9} {:>9} {:>9} {:>5} {:>11} {:>5}",
        "one address beside another",
        "it has, and does",
        "p50 alone",
        "beside",
        "p99 alone",
        "beside",
        "ratio",
        "of windows",
        "core"
    ));
    let _awake = limit.map(|_| Awake::keep());
    let cores = limit.and_then(|_| Cores::find());
    let only = std::env::var("FAIRNESS_ROW").unwrap_or_default();
    let mut unfair = Vec::new();
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("large.txt"), "x".repeat(500_000)).unwrap();
    std::fs::File::create(public.path().join("huge.bin")).unwrap().set_len(64 << 20).unwrap();
    for row in abusers::rows(public.path()).iter().filter(|row| row.name.contains(&only)) {
        let (line, ratio) = measure(row, cores).await;
        print(&line);
        if limit.is_some_and(|limit| ratio > limit) {
            unfair.push(row.name);
        }
    }
    assert!(unfair.is_empty(), "their neighbours wait for too long: {unfair:?}");
}

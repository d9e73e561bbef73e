//! A running application of a test. It has a thread and a runtime of its own: so it stops whatever the runtime of the test is
//! busy with, nothing of it outlasts its stop, and its panics are known by their threads.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use phalanx_core::config::Config;
use phalanx_core::{Engine, Node, Shutdown, StopReport, StopRequest};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::TestClient;
use super::clock::TestClock;
use super::job_store::{JobMode, TestJobs};
use super::nodes::TestNodes;
use super::panics::PanicList;
use super::waiting::{self, on_clients};
use crate::app::{App, RunningApp, TestTime};
use crate::settings::Settings;

/// The longest start, beyond what initializers and Redis may take by their settings.
const BOOT: Duration = Duration::from_secs(120);

/// The longest stop beyond the grace.
const STOP: Duration = Duration::from_secs(10);

/// The time for the tasks that the application left running.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// The threads of a node in a test.
const THREADS: usize = 2;

/// A running application, or a node of one. It stops when this is dropped, also by a failing test; then running calls are cut
/// off.
///
/// # Panics
///
/// When it is dropped, if code of the application has panicked, wherever: in a hook, a task, an action, a layer, or a task that
/// it spawned, also where the node answered `internal` for it. [`TestApp::take_panics`] is for tests that expect one.
#[must_use = "the application stops when this is dropped"]
pub struct TestApp {
    pub(super) parts: Arc<AppParts>,
    folder: PathBuf,
    shutdown: Shutdown,
    grace: Duration,
    /// Requests the stop.
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Stopped>>,
    /// Closed when the thread ends.
    done: Mutex<mpsc::Receiver<()>>,
}

/// How an application stopped.
type Stopped = Result<StopReport, String>;

/// The parts that clients and sockets share with their application.
pub(super) struct AppParts {
    pub(super) engine: Engine,
    /// Its address, if it has the role `web`.
    pub(super) addr: Option<SocketAddr>,
    pub(super) own: Option<OwnParts>,
    pub(super) nodes: Arc<TestNodes>,
    pub(super) panics: Arc<PanicList>,
    runtime: Handle,
}

/// The clock and the queue of a node on the embedded backend, which its test moves.
#[derive(Clone)]
pub(super) struct OwnParts {
    pub(super) clock: TestClock,
    pub(super) jobs: Arc<TestJobs>,
}

impl TestApp {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Why it does not start.
    pub(super) async fn boot(ready: ReadyApp) -> Result<Self, String> {
        let (folder, grace) = (ready.folder.path().to_owned(), ready.settings.config.general.grace);
        let (shutdown, panics) = (Shutdown::default(), Arc::<PanicList>::default());
        let (started, is_started) = oneshot::channel();
        let (stop, requested) = oneshot::channel();
        let (has_ended, ended) = oneshot::channel();
        let (done, is_done) = mpsc::sync_channel(0);
        let owner = AppOwner { ready, shutdown: shutdown.clone(), panics: panics.clone() };
        // Begun by the thread of the test, it and its own threads print into the output of the test.
        let run = move || {
            owner.run(started, requested, has_ended);
            drop(done);
        };
        thread::Builder::new().name("phalanx-test".to_owned()).spawn(run).map_err(|error| error.to_string())?;
        let parts = match is_started.await {
            Ok(Ok(parts)) => parts,
            Ok(Err(reason)) => return Err(reason + &panics.note()),
            Err(_) => return Err(format!("its thread has ended{}", panics.note())),
        };
        let parts = Arc::new(parts);
        Ok(Self { parts, folder, shutdown, grace, stop: Some(stop), ended: Some(ended), done: Mutex::new(is_done) })
    }

    /// A new client, without cookies.
    ///
    /// # Panics
    ///
    /// If the node has not the role `web`.
    pub fn client(&self) -> TestClient {
        TestClient::new(self.parts.clone())
    }

    /// The clock, to be put forward.
    ///
    /// # Panics
    ///
    /// If it is a node of a cluster, whose clock is that of Redis.
    pub fn clock(&self) -> &TestClock {
        let own = self.parts.own.as_ref();
        &own.expect("the clock of a cluster is that of Redis: test what depends on time with testing::start").clock
    }

    /// The handle of its node. Hooks that a call of it runs are run by the test itself: use [`TestApp::run`] if their panics are
    /// to fail the test.
    pub fn node(&self) -> &Node {
        self.parts.engine.node()
    }

    /// Runs code on the threads of the application, as an action would: `app.run(|node| async move { … }).await`.
    ///
    /// # Panics
    ///
    /// If it panics, or does not end within a minute.
    pub async fn run<F, Fut>(&self, code: F) -> Fut::Output
    where
        F: FnOnce(Node) -> Fut + Send + 'static,
        Fut: Future<Output: Send + 'static> + Send + 'static,
    {
        let node = self.node().clone();
        let code = self.parts.runtime.spawn(async move { timeout(waiting::ANSWER, code(node)).await });
        match code.await {
            Ok(Ok(output)) => output,
            Ok(Err(_)) => panic!("the code that runs in the application did not end within {:?}", waiting::ANSWER),
            Err(ended) => panic!("the code that runs in the application ended: {ended}{}", self.parts.panics.note()),
        }
    }

    /// The address of HTTP and WebSocket.
    ///
    /// # Panics
    ///
    /// If the node has not the role `web`.
    pub fn addr(&self) -> SocketAddr {
        self.parts.addr()
    }

    /// Its own folder: see [`TestStart::folder`](super::TestStart::folder).
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until no job waits or runs, and none is due. Jobs that are due later do not count, nor ticks of periodic tasks that
    /// were not enqueued yet: [`until`](super::until) waits for these.
    ///
    /// # Panics
    ///
    /// If that takes more than 30 s: with the queues; or if the application keeps no jobs.
    pub async fn jobs_done(&self) {
        let engine = self.parts.engine.clone();
        let store = engine.task_store().cloned().expect("the backend keeps jobs");
        let waited = on_clients(waiting::poll(move || {
            let store = store.clone();
            async move {
                while store.promote().await.map_err(|error| error.to_string())?.moved > 0 {}
                let stats = store.stats().await.map_err(|error| error.to_string())?;
                let waiting: u64 = stats.queues.iter().map(|(_, length)| length).sum();
                if waiting + stats.running == 0 { Ok(()) } else { Err(format!("{stats:?}")) }
            }
        }))
        .await;
        if let Err(reason) = waited {
            panic!("jobs are not done within {:?}: {reason}{}", waiting::CONDITION, self.parts.panics.note());
        }
    }

    /// Takes the panics until now, which do not fail the test then: the place, thread and message of each.
    pub fn take_panics(&self) -> Vec<String> {
        self.parts.panics.take()
    }

    /// Stops it, and says what was cut off. Dropping it does the same.
    ///
    /// # Panics
    ///
    /// If it does not stop within `general.grace` and 10 s, or its code has panicked.
    pub async fn stop(mut self) -> StopReport {
        drop(self.stop.take());
        let stopped = match self.ended.take() {
            Some(ended) => ended.await.unwrap_or_else(|_| Err("its thread has ended".to_owned())),
            None => Err("it is stopped already".to_owned()),
        };
        self.has_stopped();
        stopped.unwrap_or_else(|reason| panic!("the application did not stop: {reason}"))
    }

    /// Waits for the end of its thread.
    fn has_stopped(&self) {
        let limit = self.grace + STOP + LAST_TASKS * 10;
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(mpsc::RecvTimeoutError::Timeout) = done.recv_timeout(limit) {
            eprintln!("the application of the test did not stop within {limit:?}: its thread goes on");
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let has_failed = thread::panicking();
        if self.stop.is_some() {
            if has_failed {
                self.shutdown.request(StopRequest { grace: Some(Duration::ZERO), ..StopRequest::default() });
            }
            drop(self.stop.take());
            self.has_stopped();
        }
        let panics = self.parts.panics.note();
        if has_failed {
            eprint!("{}", panics.trim_start()); // the test fails for another reason
        } else if !panics.is_empty() {
            panic!("{}", panics.trim_start());
        }
    }
}

impl fmt::Debug for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestApp({})", self.node().id())
    }
}

impl AppParts {
    pub(super) fn node(&self) -> &Node {
        self.engine.node()
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr.expect("the node has not the role web: general.roles is to contain it for clients")
    }

    /// Unix time in milliseconds, as the application has it.
    pub(super) fn now_ms(&self) -> u64 {
        self.engine.clock().now_ms()
    }

    pub(super) fn config(&self) -> &Config {
        self.engine.config()
    }
}

/// An application whose settings and states are made.
pub(super) struct ReadyApp {
    pub(super) app: App,
    pub(super) settings: Settings,
    pub(super) folder: TempDir,
    pub(super) nodes: Arc<TestNodes>,
    pub(super) job_mode: JobMode,
}

/// The thread of an application.
struct AppOwner {
    ready: ReadyApp,
    shutdown: Shutdown,
    panics: Arc<PanicList>,
}

impl AppOwner {
    /// Runs it until its stop is requested, or the test is gone.
    fn run(
        self,
        started: oneshot::Sender<Result<AppParts, String>>,
        stop: oneshot::Receiver<()>,
        ended: oneshot::Sender<Stopped>,
    ) {
        let Self { ready: ReadyApp { mut app, settings, folder, nodes, job_mode }, shutdown, panics } = self;
        let runtime = match runtime(&panics) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error.to_string()))),
        };
        app.set_on_thread_start(Arc::new({
            let panics = panics.clone();
            move || panics.adopt_thread()
        }));
        let config = settings.config.clone();
        let running = runtime.block_on(start_node(app, settings, &nodes, job_mode, &shutdown));
        let served = running.map(|(running, own)| {
            let parts = AppParts {
                engine: running.engine().clone(),
                addr: running.web_addr(),
                own,
                nodes: nodes.clone(),
                panics,
                runtime: runtime.handle().clone(),
            };
            (running, parts)
        });
        let stopped = match served {
            Ok((running, parts)) => runtime.block_on(async {
                let node = running.node().clone();
                nodes.add(node.clone());
                if started.send(Ok(parts)).is_ok() {
                    let _ = stop.await; // its sender is dropped
                }
                nodes.remove(&node);
                let stopped = stop_within(running, &shutdown, config.general.grace + STOP).await;
                nodes.ended(&config).await;
                stopped
            }),
            Err(reason) => {
                runtime.block_on(nodes.ended(&config)); // first, for the test program may end with the failed test
                return drop(started.send(Err(reason)));
            }
        };
        runtime.shutdown_timeout(LAST_TASKS);
        drop(folder);
        let _ = ended.send(stopped);
    }
}

/// Starts a node, with a clock and a queue of its own if it is alone.
async fn start_node(
    app: App,
    settings: Settings,
    nodes: &TestNodes,
    job_mode: JobMode,
    shutdown: &Shutdown,
) -> Result<(RunningApp, Option<OwnParts>), String> {
    let (time, own) = match nodes.url() {
        Some(url) => (TestTime::Redis(url.to_owned()), None),
        None => {
            let clock = TestClock::new();
            let jobs = Arc::new(TestJobs::new(clock.seam(), settings.config.tasks.failed_max, job_mode));
            (TestTime::Own(clock.seam(), jobs.clone()), Some(OwnParts { clock, jobs }))
        }
    };
    // On another thread: one that an initializer blocks holds up no timeout.
    let starting = tokio::spawn(app.start_in_test(settings, time, shutdown.clone()));
    match timeout(BOOT, starting).await {
        Ok(Ok(started)) => started.map(|running| (running, own)),
        Ok(Err(ended)) => Err(ended.to_string()),
        Err(_) => Err(format!("it is not ready after {BOOT:?}")),
    }
}

/// Stops a node.
async fn stop_within(running: RunningApp, shutdown: &Shutdown, limit: Duration) -> Stopped {
    match timeout(limit, tokio::spawn(running.stop())).await {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(ended)) => Err(ended.to_string()),
        Err(_) => {
            shutdown.cut().await;
            Err(format!("{limit:?} are over; {}", shutdown.cut_work().unwrap_or_default()))
        }
    }
}

/// The runtime of an application, whose threads list their panics.
fn runtime(panics: &Arc<PanicList>) -> std::io::Result<Runtime> {
    panics.adopt_thread();
    let panics = panics.clone();
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("phalanx-test").on_thread_start(move || panics.adopt_thread());
    builder.enable_all().build()
}

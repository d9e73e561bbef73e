//! The worker as a part of a node: it starts last, and stops first.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phalanx_core::backend::TaskStore;
use phalanx_core::config::NodeRole;
use phalanx_core::transport::Transport;
use phalanx_core::{BoxError, Engine};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::first_polls::FirstPolls;
use crate::metrics;
use crate::periodic::{self, Ticker};
use crate::promoter::promote;
use crate::run::WorkerLoop;
use crate::thread::{ThreadStart, WorkerThread};

/// The problem of a node whose worker panicked. Its jobs run elsewhere once it is replaced: its lease is still renewed.
const WORKER_ENDED: &str = "the worker of tasks has panicked";

/// The problem of a node whose ticker panicked.
const TICKER_ENDED: &str = "the ticker of periodic tasks has panicked";

/// The problem of a node that promotes no delayed jobs any more.
const PROMOTER_ENDED: &str = "the promoter of delayed jobs has panicked";

/// Runs a node's jobs if it has the role `worker`, enqueues the ticks of its periodic tasks and its delayed jobs if it has
/// the role `scheduler`. On a node without tasks it does nothing; with `tasks.concurrency = 0` it runs none.
#[derive(Debug, Default)]
pub struct TaskWorker {
    /// Cancelled when the node begins to stop.
    no_more_ticks: CancellationToken,
    running: Mutex<Option<RunningWorker>>,
    on_thread_start: ThreadStart,
}

#[derive(Debug)]
struct RunningWorker {
    /// The runtime of attempts.
    runtime: Option<Runtime>,
    /// The loop, which returns how many attempts could not be settled.
    worker: Option<JoinHandle<usize>>,
    orders: watch::Sender<WorkerOrder>,
}

/// How far a worker is to go on.
#[derive(Clone, Copy, Debug)]
enum WorkerOrder {
    /// Fetch and run.
    Run,
    /// Run what was fetched.
    Quiet,
    /// The same until then.
    FinishBy(Instant),
}

/// The loop's side of the orders.
#[derive(Debug)]
pub(crate) struct StopOrder {
    orders: watch::Receiver<WorkerOrder>,
    /// Whether the grace was over.
    is_over: bool,
    /// When waiting ends for the last answers.
    end: Option<Instant>,
}

impl TaskWorker {
    /// A worker that was not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `run` at the start of each of its threads: what a thread has for the code that it runs is its own.
    #[must_use]
    pub fn on_thread_start(mut self, run: Arc<dyn Fn() + Send + Sync>) -> Self {
        self.on_thread_start = ThreadStart(Some(run));
        self
    }

    /// Enqueues the ticks of periodic tasks, if there are any, until the node stops. A node that has started has shown its
    /// schedules: ticks that come from then on are not lost, unless the store does not answer.
    async fn tick(&self, engine: &Engine, store: &Arc<dyn TaskStore>) {
        let Some(mut ticker) = Ticker::new(engine, store) else { return };
        let _ = engine.catch(ticker.show()).await; // one that panics has its end below
        let (engine, stop) = (engine.clone(), self.no_more_ticks.clone());
        engine.clone().shutdown().spawn_own(async move {
            if engine.catch(ticker.run(stop)).await.is_err() {
                error!("{TICKER_ENDED}: this node enqueues no ticks until it is started again");
                engine.set_problem(TICKER_ENDED, true);
            }
        });
    }

    /// Promotes delayed jobs on a node whose loop does not.
    fn promote(&self, engine: &Engine, store: Arc<dyn TaskStore>) {
        let (engine, stop) = (engine.clone(), self.no_more_ticks.clone());
        engine.clone().shutdown().spawn_own(async move {
            if engine.catch(promote(engine.clone(), store, stop)).await.is_err() {
                error!("{PROMOTER_ENDED}: this node enqueues no delayed jobs until it is started again");
                engine.set_problem(PROMOTER_ENDED, true);
            }
        });
    }

    /// Says once how this node's jobs may be lost. Nothing waits for the answer of the store.
    fn warn_of_risks(&self, engine: &Engine, store: &Arc<dyn TaskStore>) {
        let (store, stop) = (store.clone(), self.no_more_ticks.clone());
        engine.shutdown().spawn_own(async move {
            for risk in stop.run_until_cancelled(store.risks()).await.unwrap_or_default() {
                warn!("{risk}");
            }
        });
    }

    fn running(&self) -> MutexGuard<'_, Option<RunningWorker>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for TaskWorker {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn check(&self, engine: &Engine) -> Result<(), BoxError> {
        Ok(periodic::check(engine.registry())?)
    }

    async fn start(&self, engine: &Engine) -> Result<(), BoxError> {
        let settings = &engine.config().tasks;
        if engine.registry().tasks().next().is_none() {
            return Ok(());
        }
        let Some(store) = engine.task_store().cloned() else {
            error!("the backend of this node keeps no jobs: none can be enqueued, and none runs");
            return Ok(());
        };
        self.warn_of_risks(engine, &store);
        let has = |role| engine.config().active_roles().any(|active| active == role);
        let is_scheduler = has(NodeRole::Scheduler);
        if is_scheduler {
            self.tick(engine, &store).await;
        }
        if !has(NodeRole::Worker) {
            if is_scheduler {
                self.promote(engine, store);
            }
            return Ok(());
        }
        metrics::describe();
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)),
            threads => threads,
        };
        let on_start = self.on_thread_start.clone();
        let runtime = Builder::new_multi_thread()
            .on_thread_start(move || on_start.run())
            .worker_threads(threads)
            .max_blocking_threads(settings.concurrency)
            .thread_name("phalanx-tasks")
            .enable_all()
            .build()?;
        let (orders, order) = watch::channel(WorkerOrder::Run);
        let first_polls = Arc::<FirstPolls>::default();
        let worker = WorkerLoop::new(engine.clone(), store, runtime.handle().clone(), first_polls.clone());
        let (tasks, stop) = (worker.tasks.clone(), StopOrder { orders: order, is_over: false, end: None });
        let (engine_of_loop, cancellations) = (engine.clone(), engine.task_cancellations());
        let running = Box::pin(async move { engine_of_loop.catch(worker.run(cancellations, stop)).await });
        let thread =
            WorkerThread::start(running, runtime.handle().clone(), first_polls, tasks, self.on_thread_start.clone())?;
        let engine_of_loop = engine.clone();
        let worker = engine.shutdown().spawn_own(async move {
            match thread.await {
                Some(Ok(unsettled)) => unsettled,
                Some(Err(_)) | None => {
                    error!("{WORKER_ENDED}: this node runs no jobs until it is started again");
                    engine_of_loop.set_problem(WORKER_ENDED, true);
                    1 // at least: the panic took the number along
                }
            }
        });
        *self.running() = Some(RunningWorker { runtime: Some(runtime), worker: Some(worker), orders });
        Ok(())
    }

    async fn stop_accepting(&self) {
        self.no_more_ticks.cancel();
        if let Some(running) = &*self.running() {
            running.orders.send_replace(WorkerOrder::Quiet);
        }
    }

    async fn finish(&self, deadline: Instant) -> usize {
        let worker = match &mut *self.running() {
            None => return 0,
            Some(running) => {
                running.orders.send_replace(WorkerOrder::FinishBy(deadline));
                running.worker.take()
            }
        };
        let unsettled = match worker {
            Some(worker) => worker.await.unwrap_or(0),
            None => 0,
        };
        if let Some(runtime) = self.running().as_mut().and_then(|running| running.runtime.take()) {
            runtime.shutdown_background(); // a task may block its thread for good
        }
        unsettled
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl StopOrder {
    /// Whether nothing is to be fetched any more.
    pub(crate) fn is_quiet(&self) -> bool {
        !matches!(*self.orders.borrow(), WorkerOrder::Run)
    }

    /// Completes at a new order, at the end of the grace, and at the end of the wait for the last answers.
    pub(crate) async fn changed(&mut self) {
        let next = match (self.end, *self.orders.borrow()) {
            (Some(end), _) => Some(end),
            (None, WorkerOrder::FinishBy(deadline)) => Some(deadline),
            (None, WorkerOrder::Run | WorkerOrder::Quiet) => None,
        };
        let changed = self.orders.changed();
        match next {
            Some(at) => self.is_over |= timeout_at(at, changed).await.is_err(),
            // Without a sender the worker was dropped: it ends with its node.
            None => {
                if changed.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Once the grace is over: until when the store's last answers are awaited.
    pub(crate) fn last_deadline(&mut self, wait: Duration) -> Option<Instant> {
        self.is_over.then(|| *self.end.get_or_insert_with(|| Instant::now() + wait))
    }

    /// Waits for `work`, at most until the grace is over.
    pub(crate) async fn until_grace_is_over(&self, work: impl Future<Output = ()>) {
        let deadline = match *self.orders.borrow() {
            WorkerOrder::FinishBy(deadline) => deadline,
            WorkerOrder::Run | WorkerOrder::Quiet => Instant::now(),
        };
        tokio::select! {
            () = work => {}
            () = sleep_until(deadline) => {}
        }
    }
}

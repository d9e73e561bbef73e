//! The thread of the worker: it runs the loop, and polls attempts that are expected to end at once, without a hand-over to
//! another thread.
//!
//! Such an attempt may block all the same. It is polled outside of the loop's runtime, so that another thread can run that
//! meanwhile: one is started when a poll takes long, and the first one ends when the poll returns. An attempt that blocks
//! has a slot, so there are no more threads than slots.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use crate::first_polls::FirstPolls;
use crate::served::ServedTasks;

/// How often polls are looked at. One that two looks in a row see blocks the thread: a poll takes 20 µs. Looks are counted, not
/// seconds: after a process stood still, its first look proves nothing.
const LOOKS: Duration = Duration::from_millis(200);

/// Runs at the start of each thread of the worker, if there is one.
#[derive(Clone, Default)]
pub(crate) struct ThreadStart(pub(crate) Option<Arc<dyn Fn() + Send + Sync>>);

impl ThreadStart {
    pub(crate) fn run(&self) {
        if let Self(Some(run)) = self {
            run();
        }
    }
}

impl fmt::Debug for ThreadStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadStart")
    }
}

/// The loop of the worker, its runtime, and the thread that drives both.
pub(crate) struct WorkerThread<T> {
    /// Dropped without waiting for anything.
    runtime: Option<Runtime>,
    /// The loop, until it has ended, and who awaits that.
    worker: Mutex<Option<(BoxFuture<'static, T>, oneshot::Sender<T>)>>,
    /// The runtime of attempts.
    attempts: Handle,
    first_polls: Arc<FirstPolls>,
    tasks: ServedTasks,
    turn: Mutex<Arc<Turn>>,
    on_start: ThreadStart,
}

/// The time in which one thread drives the runtime and polls.
#[derive(Default)]
pub(crate) struct Turn {
    /// How many polls began and ended: an odd number while one is under way.
    steps: AtomicU64,
    /// Whether another thread goes on.
    is_over: AtomicBool,
}

impl Turn {
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// Does a step that may block.
    pub(crate) fn step(&self, step: impl FnOnce()) {
        self.steps.fetch_add(1, SeqCst);
        step();
        self.steps.fetch_add(1, SeqCst);
    }
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Runs a loop; returns its result. Meanwhile it replaces a thread that is blocked.
    ///
    /// # Errors
    ///
    /// If no thread could be started.
    pub(crate) fn start(
        worker: BoxFuture<'static, T>,
        attempts: Handle,
        first_polls: Arc<FirstPolls>,
        tasks: ServedTasks,
        on_start: ThreadStart,
    ) -> io::Result<impl Future<Output = Option<T>>> {
        let (result, mut ended) = oneshot::channel();
        let thread = Arc::new(Self {
            runtime: Some(Builder::new_current_thread().enable_all().build()?),
            worker: Mutex::new(Some((worker, result))),
            attempts,
            first_polls,
            tasks,
            turn: Mutex::default(),
            on_start,
        });
        thread.clone().drive(thread.turn())?;
        Ok(async move {
            let mut looks = interval(LOOKS);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut seen = 0;
            loop {
                tokio::select! {
                    result = &mut ended => return result.ok(),
                    _ = looks.tick() => {}
                }
                let steps = thread.turn().steps.load(SeqCst);
                if steps % 2 == 1 && steps == seen {
                    thread.replace();
                }
                seen = steps;
            }
        })
    }

    /// Another thread goes on. Attempts that wait for the blocked one may be of the same task: they run where they block
    /// nothing else.
    fn replace(self: &Arc<Self>) {
        warn!("a task blocks the thread of the worker: another one goes on");
        self.tasks.values().for_each(|task| task.set_quick(false));
        let next = Arc::<Turn>::default();
        if let Err(error) = self.clone().drive(next.clone()) {
            return error!(%error, "no thread could be started: no jobs begin or end here until the task returns");
        }
        std::mem::replace(&mut *lock(&self.turn), next).is_over.store(true, SeqCst);
    }

    /// Starts a thread, which goes on until the loop has ended, or its turn is over.
    fn drive(self: Arc<Self>, turn: Arc<Turn>) -> io::Result<()> {
        let run = move || {
            self.on_start.run();
            while !turn.is_over() && self.runtime().block_on(poll_fn(|cx| self.poll_loop(cx))) {
                self.first_polls.poll_all(&self.attempts, &turn);
            }
        };
        std::thread::Builder::new().name("phalanx-worker".to_owned()).spawn(run).map(drop)
    }

    /// Polls the loop until attempts are to be polled; `false` once it has ended.
    fn poll_loop(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut slot = lock(&self.worker);
        let Some((worker, awaited)) = &mut *slot else { return Poll::Ready(false) };
        let polled = worker.as_mut().poll(cx);
        // A node that is dropped without a stop takes its loop along.
        if polled.is_ready() || awaited.poll_closed(cx).is_ready() {
            if let (Poll::Ready(result), Some((_, awaited))) = (polled, slot.take()) {
                let _ = awaited.send(result);
            }
            return Poll::Ready(false);
        }
        if self.first_polls.is_empty() { Poll::Pending } else { Poll::Ready(true) }
    }

    fn turn(&self) -> Arc<Turn> {
        lock(&self.turn).clone()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the drop")
    }
}

impl<T> Drop for WorkerThread<T> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

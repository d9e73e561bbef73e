//! A node with a worker, and the tasks that tests enqueue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx_core::answer::{IntoAnswer, answering};
use phalanx_core::backend::{JobState, TaskStore};
use phalanx_core::config::Config;
use phalanx_core::params::input_schema;
use phalanx_core::registry::Definitions;
use phalanx_core::task::{
    JobRate, QueueLimits, RetryPolicy, Task, TaskContext, TaskDef, TaskFailure, UniqueKey, UniquePolicy, UniqueUntil,
    check_input, decode_input,
};
use phalanx_core::{ActionError, Deadline, Engine, Node, NodeSetup, StartError};
use phalanx_tasks::TaskWorker;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use validator::Validate;

/// The limit for every wait.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The input of all tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Work {
    /// Names the entries of the log.
    pub(crate) name: String,
    /// How the attempts end, by their number: `ok`, `error`, `conflict`, `panic`, `wait`, `wait, then fail`, `block`, `snooze`,
    /// `snooze for ever`, `retry`, `retry never`, `discard`, `cancel`, `report`, `beat`, …. After the last, `ok`.
    pub(crate) ends: Vec<String>,
}

pub(crate) fn work(name: &str, ends: &[&str]) -> Work {
    Work { name: name.to_owned(), ends: ends.iter().map(|end| (*end).to_owned()).collect() }
}

/// The record of a node's attempts, and what holds them.
pub(crate) struct Log {
    entries: Mutex<Vec<String>>,
    runs: Mutex<HashMap<String, usize>>,
    pub(crate) fences: Mutex<Vec<u64>>,
    /// Attempts that wait for the test.
    pub(crate) waiting: AtomicUsize,
    pub(crate) go_on: Semaphore,
}

impl Log {
    fn new() -> Self {
        Self {
            entries: Mutex::default(),
            runs: Mutex::default(),
            fences: Mutex::default(),
            waiting: AtomicUsize::new(0),
            go_on: Semaphore::new(0),
        }
    }

    pub(crate) fn add(&self, entry: String) {
        self.entries.lock().unwrap().push(entry);
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }
}

async fn perform(ctx: TaskContext, input: Work) -> Result<(), ActionError> {
    let log = ctx.node().state::<Log>().unwrap();
    let run = {
        let mut runs = log.runs.lock().unwrap();
        let run = runs.entry(input.name.clone()).or_default();
        *run += 1;
        *run - 1
    };
    log.fences.lock().unwrap().push(ctx.fence());
    log.add(format!("{} {}", input.name, ctx.attempt()));
    match input.ends.get(run).map_or("ok", String::as_str) {
        "error" => Err(ActionError::internal("disk full")),
        "conflict" => Err(ActionError::conflict("taken")),
        "panic" => panic!("out of luck"),
        "snooze" => Err(ctx.snooze(Duration::from_millis(1))),
        "snooze for ever" => Err(ctx.snooze(Duration::MAX)),
        "retry never" => Err(ctx.retry_in(Duration::MAX)),
        "retry" => Err(ctx.retry_in(Duration::from_millis(1))),
        "report" => {
            for step in 1..=700 {
                ctx.progress(&step)?;
                sleep(Duration::from_millis(1)).await;
            }
            ctx.progress("last")
        }
        "report too much" => ctx.progress(&"x".repeat(4095)),
        "beat" => {
            log.waiting.fetch_add(1, SeqCst);
            while log.go_on.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
                ctx.heartbeat()?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        "beat and block" => {
            log.waiting.fetch_add(1, SeqCst);
            loop {
                ctx.heartbeat()?;
                std::thread::yield_now();
            }
        }
        "enqueue" => {
            let (request, trace) = (ctx.request().to_string(), ctx.traceparent().unwrap_or_default().to_owned());
            log.add(format!("{request} {trace} {}", ctx.meta("tenant").unwrap_or_default()));
            let ends = input.ends.get(run + 1..).unwrap_or_default().to_vec();
            ctx.tasks().enqueue::<Plain>(Work { name: format!("{}'", input.name), ends }).await.map(drop)
        }
        "discard" => Err(ctx.discard()),
        "cancel" => Err(ctx.cancel("unsubscribed")),
        "pending" => std::future::pending().await,
        "wait" => {
            log.waiting.fetch_add(1, SeqCst);
            log.go_on.acquire().await.unwrap().forget();
            Ok(())
        }
        "wait, then fail" => {
            log.waiting.fetch_add(1, SeqCst);
            log.go_on.acquire().await.unwrap().forget();
            Err(ActionError::internal("disk full"))
        }
        end @ ("block" | "block, named") => {
            if end != "block" {
                log.add(format!("{} on {}", input.name, std::thread::current().name().unwrap_or_default()));
            }
            log.waiting.fetch_add(1, SeqCst);
            while log.go_on.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
                std::thread::yield_now();
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The task without anything special: three attempts, a millisecond apart.
pub(crate) struct Plain;

pub(crate) const PLAIN: TaskDef = TaskDef {
    name: "plain",
    description: "",
    queue: "default",
    retry: RetryPolicy {
        attempts: 3,
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(1),
        not_retried: &[phalanx_core::ErrorKind::Conflict],
        ..RetryPolicy::DEFAULT
    },
    deadline: Deadline::Default,
    blocking: false,
    exclusive: false,
    tracked: false,
    limits: QueueLimits::NONE,
    fair_by: None,
    schedule: None,
    unique: UniquePolicy::DEFAULT,
    input: input_schema::<Work>,
    output: <() as IntoAnswer>::schema,
    check: check_input::<Work>,
    require: |_| {},
    on_failed: Some(|ctx, failure| Box::pin(record_failure(ctx, failure))),
    run: |ctx, body| {
        answering(async move {
            let input = match body.params(&ctx).await {
                Ok(params) => decode_input(&params)?,
                Err(outcome) => return outcome,
            };
            perform(TaskContext::of(&ctx)?, input).await?.into_answer()
        })
    },
};

async fn record_failure(ctx: TaskContext, failure: TaskFailure) {
    let name = failure.input::<Work>().map_or_else(|_| ctx.id().to_owned(), |input| input.name);
    let log = ctx.node().state::<Log>().unwrap();
    log.add(format!("{name} failed: {}, {}", failure.exception, failure.error));
}

impl Task for Plain {
    type Input = Work;
    const DEF: TaskDef = PLAIN;
}

/// The same on threads of its own.
pub(crate) struct Blocking;

impl Task for Blocking {
    type Input = Work;
    const DEF: TaskDef = TaskDef { name: "blocking", blocking: true, ..PLAIN };
}

/// The same with a deadline of 250 ms, for which a busy machine does not keep a thread from running, and one attempt.
pub(crate) struct Hasty;

impl Task for Hasty {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "hasty",
        deadline: Deadline::After(Duration::from_millis(250)),
        retry: RetryPolicy { attempts: 1, ..PLAIN.retry },
        ..PLAIN
    };
}

/// The same, unique by its name until an attempt begins.
pub(crate) struct Refresh;

impl Task for Refresh {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "refresh",
        unique: UniquePolicy { key: UniqueKey::Fields(&["name"]), until: UniqueUntil::Start, ..UniquePolicy::DEFAULT },
        ..PLAIN
    };
}

/// The same with a result, its name, that is kept.
pub(crate) struct Tracked;

impl Task for Tracked {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "tracked",
        tracked: true,
        run: |ctx, body| {
            answering(async move {
                let input: Work = match body.params(&ctx).await {
                    Ok(params) => decode_input(&params)?,
                    Err(outcome) => return outcome,
                };
                perform(TaskContext::of(&ctx)?, input.clone()).await?;
                input.name.into_answer()
            })
        },
        ..PLAIN
    };
}

/// The same with a queue of which two jobs run at once.
pub(crate) struct Limited;

impl Task for Limited {
    type Input = Work;
    const DEF: TaskDef =
        TaskDef { name: "limited", queue: "limited", limits: QueueLimits { running: Some(2), rate: None }, ..PLAIN };
}

/// The same with a queue of which a hundred jobs begin in a second.
pub(crate) struct Paced;

impl Task for Paced {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "paced",
        queue: "paced",
        limits: QueueLimits { running: None, rate: Some(JobRate { jobs: 100, window: Duration::from_secs(1) }) },
        ..PLAIN
    };
}

/// The same, whose jobs take turns by their names.
pub(crate) struct Fair;

impl Task for Fair {
    type Input = Work;
    const DEF: TaskDef = TaskDef { name: "fair", fair_by: Some("name"), ..PLAIN };
}

/// A node with a worker.
pub(crate) struct Harness {
    pub(crate) engine: Engine,
    pub(crate) node: Node,
    pub(crate) log: Arc<Log>,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}, None).await
    }

    /// Starts a node with other settings, or on another store than its memory.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config), store: Option<Arc<dyn TaskStore>>) -> Self {
        Self::start_tasks(vec![Plain::DEF, Blocking::DEF, Hasty::DEF, Tracked::DEF, Refresh::DEF], change, store)
            .await
            .unwrap()
    }

    /// Starts a node with these tasks.
    pub(crate) async fn start_tasks(
        tasks: Vec<TaskDef>,
        change: impl FnOnce(&mut Config),
        store: Option<Arc<dyn TaskStore>>,
    ) -> Result<Self, StartError> {
        let mut config = Config::default();
        config.tasks.concurrency = 4;
        change(&mut config);
        let mut setup = NodeSetup::new("test", config);
        setup.definitions = Definitions { tasks, ..Definitions::default() };
        setup.definitions.states.insert(Log::new());
        setup.transports.push(Arc::new(TaskWorker::new()));
        if let Some(store) = store {
            setup.backend.tasks = Some(store);
        }
        let engine = Engine::start(setup).await?;
        let node = engine.node().clone();
        let log = node.state::<Log>().unwrap();
        Ok(Self { engine, node, log })
    }

    pub(crate) async fn enqueue<T: Task<Input = Work>>(&self, name: &str, ends: &[&str]) -> Arc<str> {
        self.node.tasks().enqueue::<T>(work(name, ends)).await.unwrap().id
    }

    pub(crate) async fn until_state(&self, id: &str, state: JobState) {
        let description = format!("the job is {state:?}");
        eventually(&description, async || self.node.tasks().status(id).await.unwrap().state == state).await;
    }

    /// Waits until so many attempts wait for the test.
    pub(crate) async fn until_waiting(&self, count: usize) {
        eventually("attempts wait", async || self.log.waiting.load(SeqCst) == count).await;
    }

    pub(crate) async fn until_logged(&self, entry: &str) {
        eventually("an entry is logged", async || self.log.entries().iter().any(|found| found == entry)).await;
    }
}

/// Polls a condition until it is true.
pub(crate) async fn eventually(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, polling).await.expect(description);
}

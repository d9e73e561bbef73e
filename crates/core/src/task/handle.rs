//! The author's handle on the task queue: enqueues by name, and everything that the typed form of an enqueue needs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::attempt::AttemptFacts;
use super::children::MAX_ID_BYTES;
use super::draft::{DraftChanges, JobDraft, TaskCallbacks};
use super::due::Due;
use super::fair::turn_key;
use super::origin::JobOrigin;
use super::unique::{JobClaim, UniqueOptions, UniquePolicy, UniqueUntil};
use crate::backend::{BackendError, Clock, ENQUEUE_BATCH, EnqueueOutcome, NewJob, TaskStore};
use crate::cluster::Cluster;
use crate::config::TaskSettings;
use crate::error::{ActionError, Detail, ErrorKind};
use crate::event::{Event, Observers};
use crate::id::{NodeIdentity, random_text};
use crate::job::JobText;
use crate::locks::Locks;
use crate::metrics::bound_reached;
use crate::params::Params;
use crate::remote::RemoteCalls;

/// Most bytes of a job.
pub const MAX_JOB_BYTES: usize = 1024 * 1024;

/// Most jobs of one [`Tasks::enqueue_many`].
pub const MAX_MANY: usize = 100_000;

/// The task queue of the cluster. Cheap to clone.
///
/// A job that was accepted runs at least once, on any node whose application has its task. It may run twice, where a node
/// dies or is cut off while it runs it: what a task does should have the same effect then.
#[derive(Clone)]
pub struct Tasks {
    pub(crate) parts: Arc<TaskParts>,
    /// The origin of the jobs that are enqueued.
    origin: Arc<JobOrigin>,
    /// The attempt that enqueues them.
    pub(super) attempt: Option<Arc<AttemptFacts>>,
}

/// Everything that enqueuing and operating jobs needs.
pub(crate) struct TaskParts {
    pub(crate) store: Option<Arc<dyn TaskStore>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) locks: Locks,
    pub(crate) calls: Arc<RemoteCalls>,
    pub(crate) cluster: Cluster,
    /// The tasks that this application has, by name.
    pub(crate) known: HashMap<&'static str, KnownTask>,
    /// The hooks around an enqueue, if the application has any.
    pub(crate) hooks: Option<Arc<dyn TaskCallbacks>>,
    pub(crate) observers: Observers,
    /// After this time an enqueue without an answer does not take effect any more.
    pub(crate) timeout: Duration,
    /// Cancels attempts that this node runs.
    pub(crate) worker: Mutex<Option<mpsc::Sender<CancelRequest>>>,
    /// Whether this node is not to fetch jobs.
    pub(crate) quiet: watch::Sender<bool>,
    /// A permit for each caller that may wait for the end of a job.
    pub(crate) waiters: Semaphore,
}

/// The part of a definition that an enqueue needs.
#[derive(Clone, Copy)]
pub(crate) struct KnownTask {
    pub(crate) queue: &'static str,
    pub(crate) check: fn(&Params) -> Result<(), ActionError>,
    pub(crate) unique: UniquePolicy,
    pub(crate) fair_by: Option<&'static str>,
    /// How long an attempt may take.
    pub(crate) limit: Option<Duration>,
    /// Whether the ends of its jobs are kept.
    pub(crate) tracked: bool,
}

/// An enqueue whose task is known, and whose input was checked.
struct CheckedInput<'a> {
    task: &'static str,
    known: &'a KnownTask,
    input: Box<RawValue>,
    params: Params,
}

/// A request to this node's worker to cancel the attempts of a job that was deleted.
#[derive(Debug)]
pub struct CancelRequest {
    /// The job's id.
    pub id: Arc<str>,
}

/// A job that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enqueued {
    /// Its id; if it was not stored, that of the job which is there already.
    pub id: Arc<str>,
    /// Whether it was stored. `false` if a job has the same id and content, or has the unique key.
    pub enqueued: bool,
}

/// How a job is enqueued, where that is not its task's own way.
///
/// ```
/// use std::time::Duration;
/// use phalanx_core::task::EnqueueOptions;
///
/// let options = EnqueueOptions::new().queue("high").id("order-17").delay(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, Default)]
pub struct EnqueueOptions {
    queue: Option<String>,
    id: Option<String>,
    pub(super) unique: UniqueOptions,
    expires_in: Option<Duration>,
    meta: BTreeMap<String, String>,
    due: Due,
    /// The batch that the job is a member of.
    pub(super) batch: Option<Arc<str>>,
    /// The batch whose completion it is.
    pub(super) completes: Option<Arc<str>>,
}

impl EnqueueOptions {
    /// The task's own queue, now, without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// In that queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Under this id, which makes the enqueue safe to repeat for a day: a job of the same id, task and input is stored
    /// once.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Not later than that: a job that did not begin by then is dropped.
    pub fn expires_in(mut self, limit: Duration) -> Self {
        self.expires_in = Some(limit);
        self
    }

    /// With a value of the application's own, which its attempts read as `ctx.meta(name)`, and which the jobs that they enqueue
    /// carry on: 4 KiB with all others, the request id and the trace.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.insert(name.into(), value.into());
        self
    }

    /// After this time.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::In(delay);
        self
    }

    /// After so many milliseconds, as a client sent them: what is no such number is refused by the enqueue.
    pub fn delay_ms(mut self, delay: f64) -> Self {
        self.due = Due::InMs(delay);
        self
    }

    /// At this time, Unix time in milliseconds; a past one means now.
    pub fn at_ms(mut self, at_ms: u64) -> Self {
        self.due = Due::AtMs(at_ms);
        self
    }
}

impl Tasks {
    pub(crate) fn new(parts: TaskParts) -> Self {
        Self { parts: Arc::new(parts), origin: Arc::default(), attempt: None }
    }

    /// The handle for a call: its jobs carry the call's id, and its meta.
    pub(crate) fn of_origin(&self, origin: JobOrigin) -> Self {
        Self { parts: self.parts.clone(), origin: Arc::new(origin), attempt: None }
    }

    /// The same within an attempt: its jobs have ids made of that of its own job.
    pub(crate) fn of_attempt(self, attempt: Option<&Arc<AttemptFacts>>) -> Self {
        Self { attempt: attempt.cloned(), ..self }
    }

    /// Whether the application has a task of that name.
    pub fn has(&self, task: &str) -> bool {
        self.parts.known.contains_key(task)
    }

    /// Enqueues a job by the name of its task. `input` is checked as the task's input is.
    ///
    /// If the future is dropped, it is unknown whether the job is stored.
    ///
    /// # Errors
    ///
    /// Nothing is stored: `unknown_task` (404); `invalid_input` with the wrong fields, or for a queue, an id, a key or a
    /// delay that cannot be; `payload_too_large` beyond [`MAX_JOB_BYTES`], and for a meta of
    /// more than 4 KiB; `conflict` if the id was used for another task or
    /// input; the error of a [`before_enqueue`](crate::hooks::Hooks::before_enqueue) hook, `timeout` if these are late; `unavailable` if the backend
    /// refuses it. If the backend does not answer: `unavailable`, and the job may be
    /// stored within `redis.command_timeout`, or never.
    pub async fn enqueue_named(
        &self,
        task: &str,
        input: &Value,
        options: EnqueueOptions,
    ) -> Result<Enqueued, ActionError> {
        self.enqueue_raw(task, serde_json::value::to_raw_value(input).map_err(ActionError::internal)?, options).await
    }

    pub(super) async fn enqueue_raw(
        &self,
        task: &str,
        input: Box<RawValue>,
        options: EnqueueOptions,
    ) -> Result<Enqueued, ActionError> {
        let job = self.prepare(task, input, &options, self.hooks_until()).await?;
        let id = job.id.clone();
        let mut outcomes = self.store_jobs(task, &[job]).await?;
        enqueued(id, outcomes.pop().unwrap_or(EnqueueOutcome::Conflict))
    }

    /// Stores many jobs of one task, all checked before the first is stored. Returns their ids, in order; that of the job which
    /// is there already in place of one that was not stored.
    pub(super) async fn enqueue_all_raw(
        &self,
        task: &str,
        inputs: Vec<Box<RawValue>>,
        options: &EnqueueOptions,
    ) -> Result<Vec<Arc<str>>, ActionError> {
        if options.id.is_some() || options.unique.has_key() {
            return Err(invalid("id", "an id or a unique key is that of one job"));
        }
        if inputs.len() > MAX_MANY {
            bound_reached("enqueue_many");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, format!("at most {MAX_MANY} jobs at a time")));
        }
        let (mut jobs, until) = (Vec::with_capacity(inputs.len()), self.hooks_until());
        for input in inputs {
            jobs.push(self.prepare(task, input, options, until).await?);
        }
        let mut ids = Vec::with_capacity(jobs.len());
        while let Some(chunk) = chunk_of(&jobs[ids.len()..]) {
            let outcomes = self.store_jobs(task, chunk).await.map_err(|error| match ids.len() {
                0 => error,
                stored => {
                    let message = format!("{}; {stored} of {} jobs were stored before", error.message(), jobs.len());
                    error.with_message(message)
                }
            })?;
            for (job, outcome) in chunk.iter().zip(outcomes) {
                ids.push(enqueued(job.id.clone(), outcome)?.id);
            }
        }
        Ok(ids)
    }

    /// The job that the end of a batch enqueues. It is stored with the batch, so it has no claim of its own.
    pub(super) async fn prepare_completion(
        &self,
        task: &str,
        input: Box<RawValue>,
        batch: &Arc<str>,
    ) -> Result<NewJob, ActionError> {
        let options = EnqueueOptions { completes: Some(batch.clone()), ..EnqueueOptions::new() }.not_unique();
        self.prepare(task, input, &options, self.hooks_until()).await
    }

    /// The store's time after which an enqueue that begins now is refused.
    pub(super) fn until_us(&self) -> u64 {
        self.parts.clock.now_us() + self.parts.timeout.as_micros() as u64
    }

    /// Until when the hooks of an enqueue that begins now may take, for all its jobs; `None` without hooks.
    pub(super) fn hooks_until(&self) -> Option<Instant> {
        self.parts.hooks.as_ref().map(|hooks| hooks.late_at())
    }

    /// Checks a job, runs the hooks, and writes its text.
    pub(super) async fn prepare(
        &self,
        task: &str,
        input: Box<RawValue>,
        options: &EnqueueOptions,
        hooks_until: Option<Instant>,
    ) -> Result<NewJob, ActionError> {
        let checked = self.check(task, input)?;
        // Before anything is awaited: jobs of the same content are counted in the order of their enqueues.
        let child = self.attempt.as_ref().filter(|_| options.id.is_none() && options.completes.is_none());
        let child =
            child.and_then(|attempt| attempt.children.next_id(&attempt.id, digest(checked.task, &checked.input)));
        let Some((hooks, until)) = self.parts.hooks.as_ref().zip(hooks_until) else {
            return self.new_job(&checked, options, child);
        };
        // Boxed: applications without hooks have no room for it in their futures.
        let changed = Box::pin(async {
            let changes = DraftChanges {
                queue: options.queue.as_deref().unwrap_or(checked.known.queue).to_owned(),
                meta: options.meta.clone(),
            };
            let draft = JobDraft::new(checked.task, checked.input.clone(), self.origin.clone(), changes);
            hooks.before_enqueue(&draft, until).await?;
            let DraftChanges { queue, meta } = draft.decided();
            Ok(EnqueueOptions { queue: Some(queue), meta, ..options.clone() })
        });
        let changed: Result<EnqueueOptions, ActionError> = changed.await;
        self.new_job(&checked, &changed?, child)
    }

    fn check(&self, task: &str, input: Box<RawValue>) -> Result<CheckedInput<'_>, ActionError> {
        let (&task, known) = self.parts.known.get_key_value(task).ok_or_else(|| unknown_task(task))?;
        if input.get().len() > MAX_JOB_BYTES {
            return Err(too_large());
        }
        let params = Params::from_raw_json(input.clone())?;
        (known.check)(&params)?;
        Ok(CheckedInput { task, known, input, params })
    }

    fn new_job(
        &self,
        checked: &CheckedInput<'_>,
        options: &EnqueueOptions,
        child: Option<Arc<str>>,
    ) -> Result<NewJob, ActionError> {
        let &CheckedInput { task, known, ref input, ref params } = checked;
        let input: &RawValue = input;
        let queue = options.queue.as_deref().unwrap_or(known.queue);
        if !TaskSettings::is_queue(queue) {
            return Err(invalid("queue", "must be 1 to 100 characters of A-Z a-z 0-9 : . _ -"));
        }
        if options.id.as_deref().is_some_and(|id| !is_id(id)) {
            return Err(invalid("id", "must be 1 to 128 printable ASCII characters"));
        }
        let now_ms = self.parts.clock.now_ms();
        let due_ms = options.due.at_ms(now_ms)?;
        let id = options.id.as_deref().map(Arc::from).or(child);
        let digest = id.is_some().then(|| digest(task, input));
        let id: Arc<str> = id.unwrap_or_else(|| random_text::<26>().into());
        let delay_ms = due_ms.map_or(0, |due_ms| due_ms.saturating_sub(now_ms));
        let unique = JobClaim::of((task, known), queue, &options.unique, (input, params), delay_ms)?;
        let args = serde_json::value::to_raw_value(&[input]).map_err(ActionError::internal)?;
        let text = JobText {
            class: task.into(),
            queue: queue.into(),
            args: Some(&args),
            id: Some((&*id).into()),
            // A completion is enqueued by the end of its batch, which is not known yet.
            enqueued_at: options.completes.is_none().then_some(now_ms),
            due_at: due_ms,
            tick: None,
            expires_at: options.expires_in.map(|limit| now_ms.saturating_add(limit.as_millis() as u64)),
            unique: unique.as_ref().map(|unique| (&*unique.claim.key).into()),
            unique_until: unique.as_ref().filter(|unique| unique.until == UniqueUntil::Start).map(|_| "start".into()),
            unique_for: unique.as_ref().map(|unique| unique.lifetime.as_millis() as u64),
            meta: self.origin.meta(&options.meta)?,
            completes: options.completes.as_deref().map(Into::into),
            batch: options.batch.as_deref().map(Into::into),
            fair: self.fair_by(known, queue).and_then(|field| turn_key(field, input)).map(Into::into),
        };
        let text = text.write();
        if text.len() > MAX_JOB_BYTES {
            return Err(too_large());
        }
        let unique = unique.map(|unique| unique.claim);
        let (batch, tracked) = (options.batch.clone(), known.tracked);
        Ok(NewJob { id, queue: queue.into(), text, due_ms, unique, digest, batch, tracked })
    }

    /// The field by which a job of this task takes turns in this queue. In one that no task with turns has it takes none: nodes
    /// would not look for it there.
    fn fair_by(&self, known: &KnownTask, queue: &str) -> Option<&'static str> {
        let has_turns = |task: &KnownTask| task.fair_by.is_some() && task.queue == queue;
        known.fair_by.filter(|_| has_turns(known) || self.parts.known.values().any(has_turns))
    }

    async fn store_jobs(&self, task: &str, jobs: &[NewJob]) -> Result<Vec<EnqueueOutcome>, ActionError> {
        let outcomes = self.store()?.enqueue(jobs, self.until_us()).await.map_err(|error| self.not_stored(error))?;
        if let Some(EnqueueOutcome::NoMember(refusal)) = outcomes.first() {
            return Err((*refusal).into());
        }
        self.notify_stored(task, jobs, &outcomes);
        Ok(outcomes)
    }

    fn notify_stored(&self, task: &str, jobs: &[NewJob], outcomes: &[EnqueueOutcome]) {
        let observers = &self.parts.observers;
        let Some((&task, _)) = self.parts.known.get_key_value(task).filter(|_| !observers.is_empty()) else { return };
        let stored = |(_, outcome): &(&NewJob, &EnqueueOutcome)| matches!(outcome, EnqueueOutcome::Stored);
        for (job, _) in jobs.iter().zip(outcomes).filter(stored) {
            observers.notify(&Event::JobEnqueued { task, id: job.id.clone(), queue: job.queue.clone() });
        }
    }

    pub(super) fn store(&self) -> Result<&Arc<dyn TaskStore>, ActionError> {
        let missing = || ActionError::of(ErrorKind::Unavailable, "the backend of this node keeps no jobs");
        self.parts.store.as_ref().ok_or_else(missing)
    }

    fn not_stored(&self, error: BackendError) -> ActionError {
        match error {
            BackendError::Unavailable(_) => {
                let timeout = self.parts.timeout;
                let message = format!("the backend did not answer: the job is stored within {timeout:?}, or never");
                ActionError::from(error).with_message(message)
            }
            BackendError::Refused(_) | BackendError::Full => {
                ActionError::from(error).with_message("the backend refused it: nothing was stored")
            }
            other => other.into(),
        }
    }

    /// Requests this node's worker to cancel the attempts of a job. Does not wait for them.
    pub(super) fn cancel_here(&self, id: &str) {
        let Some(worker) = self.worker().clone() else { return };
        if worker.try_send(CancelRequest { id: id.into() }).is_err() {
            // The job is marked in the backend all the same.
            bound_reached("task_cancellations");
        }
    }

    pub(crate) fn worker(&self) -> MutexGuard<'_, Option<mpsc::Sender<CancelRequest>>> {
        self.parts.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first jobs that one call stores: [`ENQUEUE_BATCH`], and [`MAX_JOB_BYTES`] unless one is that large.
fn chunk_of(jobs: &[NewJob]) -> Option<&[NewJob]> {
    let mut bytes = 0;
    let fits = |job: &&NewJob| {
        bytes += job.text.len();
        bytes <= MAX_JOB_BYTES
    };
    let count = jobs.iter().take(ENQUEUE_BATCH).take_while(fits).count().max(1);
    (!jobs.is_empty()).then(|| &jobs[..count])
}

fn enqueued(id: Arc<str>, outcome: EnqueueOutcome) -> Result<Enqueued, ActionError> {
    match outcome {
        EnqueueOutcome::Stored => Ok(Enqueued { id, enqueued: true }),
        EnqueueOutcome::Existing(id) => Ok(Enqueued { id, enqueued: false }),
        EnqueueOutcome::Conflict => Err(ActionError::conflict("the id is that of a job of another task or input")),
        EnqueueOutcome::NoMember(refusal) => Err(refusal.into()),
    }
}

/// Identifies a job's content, the same on all nodes.
fn digest(task: &str, input: &RawValue) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(task.as_bytes());
    hash.update([0]);
    hash.update(input.get().as_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Names the task: a job may enqueue several, of which one was not added to the application. A client may have sent any text in
/// place of a name.
fn unknown_task(task: &str) -> ActionError {
    let message = if is_id(task) {
        format!("the application has no task {task:?}")
    } else {
        "the application has no task of that name".to_owned()
    };
    ActionError::new(ErrorKind::NotFound, "unknown_task", message)
}

fn too_large() -> ActionError {
    bound_reached("job_bytes");
    ActionError::of(ErrorKind::PayloadTooLarge, format!("a job has {MAX_JOB_BYTES} bytes at most"))
}

pub(super) fn invalid(field: &'static str, message: &'static str) -> ActionError {
    ActionError::invalid_input(vec![Detail::new(field, "format", message)])
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({})", self.parts.known.len())
    }
}

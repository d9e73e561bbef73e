//! Jobs of an application in a test: when they run, and which are enqueued.

use std::panic::Location;
use std::time::Duration;

use phalanx_core::job::{JobInput, JobText};
use phalanx_core::{Input, Params, Task};

use super::app::{OwnParts, TestApp};
use super::job_store::{DrainedJobs, JobMode, TestJobs};
use super::start::TestStart;
use super::waiting::on_clients;

/// Jobs of a failed look that are shown.
const SHOWN: usize = 20;

impl TestStart {
    /// Runs each job within its enqueue: when an enqueue returns, its job is over, and so are those that this one has enqueued.
    /// A job that is due later, or is to run again after a pause, waits for [`TestApp::advance`].
    ///
    /// It runs as any job, on the threads of tasks, with its deadline, its layers and its record if it fails; so many at once
    /// as jobs enqueue each other: `tasks.concurrency` is 1,000.
    pub fn inline_jobs(mut self) -> Self {
        self.job_mode = JobMode::Inline;
        self
    }

    /// Runs no job before the test says so, by [`TestApp::drain`]: until then [`TestApp::assert_enqueued`] looks at what is
    /// enqueued.
    pub fn manual_jobs(mut self) -> Self {
        self.job_mode = JobMode::Manual;
        self
    }
}

impl TestApp {
    /// Fails unless a job of the task `T` is enqueued whose input meets a condition: it waits, is due later, or is to run again.
    ///
    /// # Panics
    ///
    /// If there is none: with the jobs of the task. If the application has no such task, or jobs run beside the test, so that the
    /// answer would be chance.
    #[track_caller]
    pub fn assert_enqueued<T: Task<Input: Input>>(&self, condition: impl Fn(&T::Input) -> bool) {
        let inputs = self.inputs_of::<T>();
        if !inputs.iter().any(|(_, input)| input.as_ref().is_some_and(&condition)) {
            let place = Location::caller();
            let (name, shown) = (T::DEF.name, shown(&inputs));
            panic!("{place}: no job of {name} is enqueued that meets the condition, but {shown}");
        }
    }

    /// Fails if a job of the task `T` is enqueued whose input meets a condition.
    ///
    /// # Panics
    ///
    /// If there is one: with its input. If the application has no such task, or jobs run beside the test.
    #[track_caller]
    pub fn refute_enqueued<T: Task<Input: Input>>(&self, condition: impl Fn(&T::Input) -> bool) {
        for (text, input) in self.inputs_of::<T>() {
            let place = Location::caller();
            assert!(!input.as_ref().is_some_and(&condition), "{place}: a job of {} is enqueued: {text}", T::DEF.name);
        }
    }

    /// Runs the jobs that wait, and those that they enqueue, until none is left; returns how they ended. Those that are due later
    /// stay: see [`TestApp::advance`]. Several run at once, as many as `tasks.concurrency`.
    ///
    /// # Panics
    ///
    /// If that takes more than 30 s: with the numbers of the queue.
    pub async fn drain(&self) -> DrainedJobs {
        let own = self.own_jobs().clone();
        let drained = on_clients(async move { own.jobs.drain().await }).await;
        drained.unwrap_or_else(|reason| panic!("jobs are not done: {reason}{}", self.parts.panics.note()))
    }

    /// Puts the [clock](TestApp::clock) forward, and returns when the queue has followed: jobs that are due by now wait, ticks of
    /// periodic tasks are enqueued, as many as their `catch_up` says. With [`inline_jobs`](TestStart::inline_jobs) they have run
    /// as well, with [`manual_jobs`](TestStart::manual_jobs) they wait for [`TestApp::drain`].
    ///
    /// # Panics
    ///
    /// If it is a node of a cluster, or that takes more than 30 s.
    pub async fn advance(&self, by: Duration) {
        let own = self.own_jobs().clone();
        own.clock.advance(by);
        let registry = self.parts.engine.registry();
        let has_ticks = registry.tasks().any(|task| task.def.schedule.is_some());
        let followed = on_clients(async move {
            if has_ticks {
                own.jobs.ticked(own.clock.seam().now_us()).await?;
            }
            match own.jobs.mode() {
                JobMode::Inline => own.jobs.drain().await.map(drop),
                JobMode::Beside | JobMode::Manual => own.jobs.promote_all().await,
            }
        });
        if let Err(reason) = followed.await {
            panic!("the queue does not follow the clock: {reason}{}", self.parts.panics.note());
        }
    }

    fn own_jobs(&self) -> &OwnParts {
        let own = self.parts.own.as_ref();
        own.expect("jobs of a cluster are in its Redis: test what they do with testing::start, and wait for them there")
    }

    /// The jobs of a task that are enqueued: their inputs as text, and decoded.
    #[track_caller]
    fn inputs_of<T: Task<Input: Input>>(&self) -> Vec<(String, Option<T::Input>)> {
        let jobs: &TestJobs = &self.own_jobs().jobs;
        let place = Location::caller();
        assert!(
            jobs.mode() != JobMode::Beside,
            "{place}: jobs run beside this test: start it by testing::start(…).manual_jobs(), or .inline_jobs()"
        );
        let name = T::DEF.name;
        assert!(self.node().tasks().has(name), "{place}: the application has no task {name:?}");
        let mut inputs = Vec::new();
        for text in jobs.enqueued() {
            let Some(read) = JobText::read(&text).filter(|read| read.class == name) else { continue };
            let (text, params) = match read.input() {
                JobInput::Object(object) => (object.get().to_owned(), Params::from_raw_json(object.to_owned()).ok()),
                JobInput::None => ("{}".to_owned(), Some(Params::default())),
                JobInput::Other => ("no object".to_owned(), None),
            };
            inputs.push((text, params.and_then(|params| params.decode().ok())));
        }
        inputs
    }
}

fn shown<T>(inputs: &[(String, T)]) -> String {
    match inputs {
        [] => "none at all".to_owned(),
        inputs => {
            let texts: Vec<&str> = inputs.iter().take(SHOWN).map(|(text, _)| text.as_str()).collect();
            format!("{} other: {}", inputs.len(), texts.join(", "))
        }
    }
}

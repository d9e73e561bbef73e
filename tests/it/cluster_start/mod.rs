//! `start cluster` and the commands of its parent, with real processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use phalanx_supervisor::{ControlClient, ControlError, ControlReply, ControlRequest};
use phalanx_testkit::{Process, Redis, Signal, command};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::until;
use crate::panics::SOON;

mod blocked;
mod busy;
mod connects;
mod deaths;
mod deployed;
mod full;
mod jobs;
mod kills;
mod latency;
mod logs;
mod redis_away;
mod refusals;
mod rolls;
mod scaling;
mod sockets;
mod stopped_rolls;
mod stops;
mod streams;

/// A parent with its workers, and their Redis.
struct Workers {
    parent: Process,
    redis: Redis,
}

impl Workers {
    /// Starts the tour with so many workers, and waits until all are ready.
    async fn start(count: usize, environment: &[(&str, &str)]) -> Self {
        Self::start_program("tour", count, environment).await
    }

    /// Does the same with the program at a path.
    async fn start_program(program: &str, count: usize, environment: &[(&str, &str)]) -> Self {
        let redis = Redis::start().await;
        let url = redis.url();
        let environment = [&[("REDIS_URL", url.as_str()), ("RUST_LOG", "info")], environment].concat();
        let count = count.to_string();
        let mut parent = Process::spawn_with(program, &["start", "cluster", "--workers", &count], &environment);
        parent.ready().await;
        let workers = Self { parent, redis };
        workers.until_ready(count.parse().unwrap()).await;
        workers
    }

    /// Runs a command of the application in the parent's folder.
    fn command(&self, arguments: &[&str]) -> impl Future<Output = Output> + Send + use<> {
        let mut command = command("tour", self.parent.folder());
        command.args(arguments).kill_on_drop(true);
        async move { timeout(SOON * 3, command.output()).await.expect("the command ends").unwrap() }
    }

    /// Rolls all workers, which is to succeed.
    async fn roll(&self) {
        let output = self.command(&["cluster", "roll"]).await;
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{}\n{}", texts.concat(), self.parent.stderr());
    }

    /// The state, as the parent has it. Beside clients that keep all cores busy, the system may let it wait for some
    /// seconds before it runs.
    async fn status(&self) -> Value {
        let begin = Instant::now();
        loop {
            let path = self.parent.folder().join("pids/cluster.sock");
            let reply = tokio::task::spawn_blocking(move || {
                ControlClient::send(&path, &ControlRequest::Status).and_then(|mut client| client.receive())
            });
            match reply.await.unwrap() {
                Ok(ControlReply::Status(status)) => return serde_json::to_value(status).unwrap(),
                Err(ControlError::Silent(_)) if begin.elapsed() < LONGEST_STOP => {}
                other => panic!("{other:?}\n{}", self.parent.stderr()),
            }
        }
    }

    /// The process ids of the workers that are ready, by id.
    async fn pids(&self) -> BTreeMap<String, i32> {
        let status = self.status().await;
        let ready = status["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "ready");
        ready.map(|worker| (worker["id"].as_str().unwrap().to_owned(), pid_of(worker))).collect()
    }

    /// Waits until exactly so many workers run, and all are ready.
    async fn until_ready(&self, count: usize) {
        let mut status = Value::Null;
        let ready = async {
            while status["ready"] != count || status["workers"].as_array().unwrap().len() != count {
                sleep(Duration::from_millis(10)).await;
                status = self.status().await;
            }
        };
        let ready = timeout(LONGEST_STOP, ready).await;
        assert!(ready.is_ok(), "{count} workers are not ready: {status:#}\n{}", self.parent.stderr());
    }

    /// Waits until the parent has logged a line with this text so often.
    async fn until_logged(&self, text: &str, times: usize) {
        until(text, SOON * 2, async || self.parent.stderr().matches(text).count() >= times).await;
    }

    /// Waits until a worker is to stop and then until it has ended; returns the time in between.
    async fn stop_of(&self, pid: i32) -> Duration {
        until("it is to stop", LONGEST_STOP, async || {
            let status = self.status().await;
            let mut all = status["workers"].as_array().unwrap().iter();
            !all.any(|worker| pid_of(worker) == pid && worker["state"] != "stopping")
        })
        .await;
        let begin = Instant::now();
        while runs(pid) {
            assert!(begin.elapsed() < LONGEST_STOP, "{}", self.parent.stderr());
            sleep(Duration::from_millis(5)).await;
        }
        begin.elapsed()
    }

    /// Stops all, which is to succeed.
    async fn stop(mut self) {
        self.parent.signal(Signal::TERM);
        assert_eq!(self.parent.ended().await.code(), Some(0), "{}", self.parent.stderr());
        drop(self.redis);
    }
}

fn pid_of(worker: &Value) -> i32 {
    i32::try_from(worker["pid"].as_i64().unwrap()).unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether a process runs: one that has ended and was not waited for does not.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The ids of workers with these numbers.
fn ids(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| format!("phalanx-worker-{number}")).collect()
}

/// The parent kills a worker that does not end within general.grace and 5 s; the rest is for others to start.
const LONGEST_STOP: Duration = Duration::from_secs(60);

/// A second, as documented times have it.
const SECOND: Duration = Duration::from_secs(1);

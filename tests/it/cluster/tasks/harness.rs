//! Nodes that run jobs over one Redis, and the counts that show what became of these.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_testkit::{Process, Proxy, Redis, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{SOON, status, until};
use super::journal::{JobLines, Journal};
use crate::client::{get, post_json};

/// The number of keys that hold jobs which wait or run, and of delayed jobs. At one moment: a job that goes from one of these to
/// another would be in none of them, read one after the other.
pub(crate) async fn jobs_left(redis: &Redis) -> u64 {
    const COUNT: &str = "EVAL \"local left = redis.call('ZCARD', 'phalanx:tour:delayed') \
         for _, keys in ipairs(KEYS) do left = left + #redis.call('KEYS', keys) end return left\" \
         4 resque:queue:* phalanx:tour:running:* phalanx:tour:again:* phalanx:tour:suspects:*";
    let reply = redis.command(COUNT).await;
    reply.trim_start_matches(':').trim_end().parse().unwrap_or_else(|_| panic!("{reply}"))
}

/// A number of the environment, or the one of the short run.
pub(crate) fn setting(name: &str, short: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(short)
}

/// A node that runs jobs.
pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) generation: String,
    /// Between it and Redis, if its cluster has proxies.
    pub(super) proxy: Option<Proxy>,
}

/// A cluster of such nodes.
pub(super) struct JobCluster {
    pub(super) redis: Redis,
    pub(super) workers: Vec<Worker>,
    pub(super) journal: Journal,
    environment: Vec<(String, String)>,
    has_proxies: bool,
    started: usize,
}

/// Returns what `RPUSH` takes for a job.
pub(super) fn text_of(id: &str, class: &str, input: &Value) -> String {
    json!({ "class": class, "queue": "default", "args": [input], "id": id }).to_string()
}

impl JobCluster {
    pub(super) async fn start(count: usize, environment: &[(&str, &str)]) -> Self {
        Self::over(Redis::start().await, count, environment, false).await
    }

    pub(super) async fn over(redis: Redis, count: usize, environment: &[(&str, &str)], has_proxies: bool) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut cluster =
            Self { redis, workers: Vec::new(), journal: Journal::new(), environment, has_proxies, started: 0 };
        let workers = join_all((0..count).map(|number| cluster.new_worker(number, &[]))).await;
        cluster.workers = workers;
        cluster.started = count;
        cluster
    }

    async fn new_worker(&self, number: usize, more: &[(&str, &str)]) -> Worker {
        let proxy = if self.has_proxies { Some(Proxy::before(self.redis.addr()).await) } else { None };
        let url = proxy.as_ref().map_or_else(|| self.redis.url(), |proxy| self.redis.url_through(proxy.addr()));
        let (title, journal) = (format!("w{number}"), self.journal.path());
        let mut environment = vec![("REDIS_URL", &*url), ("PHALANX_TITLE", &title), ("TOUR_JOURNAL", &journal)];
        environment.extend(self.environment.iter().map(|(name, value)| (&**name, &**value)));
        environment.extend(more);
        let process = Process::start("tour", &environment).await;
        let generation = status(process.addr).await["generation"].as_str().unwrap().to_owned();
        Worker { process, generation, proxy }
    }

    /// Starts one more node.
    pub(super) async fn add(&mut self, environment: &[(&str, &str)]) -> usize {
        let worker = self.new_worker(self.started, environment).await;
        self.started += 1;
        self.workers.push(worker);
        self.workers.len() - 1
    }

    /// Reads the names of the nodes again, which change when they lose their leases.
    pub(super) async fn rename(&mut self) {
        for worker in &mut self.workers {
            if let Some(generation) = status(worker.process.addr).await["generation"].as_str() {
                worker.generation = generation.to_owned();
            }
        }
    }

    /// Kills a node; returns its generation and the jobs that it ran, by id.
    pub(super) async fn kill(&mut self, worker: usize) -> (String, Vec<String>) {
        let mut worker = self.workers.swap_remove(worker);
        worker.process.signal(Signal::KILL);
        worker.process.ended().await;
        let listed = self.listed(&worker.generation).await;
        (worker.generation, listed)
    }

    pub(super) fn addr(&self, worker: usize) -> SocketAddr {
        self.workers[worker].process.addr
    }

    /// The ids of the jobs that a generation runs.
    pub(super) async fn listed(&self, generation: &str) -> Vec<String> {
        self.texts(&format!("HVALS phalanx:tour:running:{generation}")).await.iter().map(|text| id_of(text)).collect()
    }

    /// How many attempts the living nodes have listed.
    pub(super) async fn running(&self) -> u64 {
        let mut running = 0;
        for worker in &self.workers {
            running += self.number(&format!("HLEN phalanx:tour:running:{}", worker.generation)).await;
        }
        running
    }

    /// Adds jobs `<prefix>0`, `<prefix>1`, … in one step, as a resque tool would.
    pub(super) async fn push(&self, prefix: &str, count: u64, class: &str, input: &Value) {
        let text = text_of("ID", class, input).replace('"', "\\\"").replace("ID", &format!("{prefix}'..n..'"));
        let script = format!(
            "for n = 0, {count} - 1 do redis.call('RPUSH', 'resque:queue:default', '{text}') end \
             redis.call('SADD', 'resque:queues', 'default') redis.call('PUBLISH', 'tour:wake', 'default')"
        );
        let reply = self.redis.command(&format!("EVAL \"{script}\" 0")).await;
        assert_eq!(reply, "$-1\r\n");
    }

    /// The integer with which Redis replies, or that a string contains; 0 without one.
    pub(super) async fn number(&self, command: &str) -> u64 {
        let reply = self.redis.command(command).await;
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        let last = reply.trim_end().lines().last().unwrap_or_default();
        last.trim_start_matches([':', '$']).parse().unwrap_or(0)
    }

    /// The strings of a reply. None may contain a line break.
    pub(super) async fn texts(&self, command: &str) -> Vec<String> {
        let reply = self.redis.command(command).await;
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        reply.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
    }

    pub(super) async fn processed(&self) -> u64 {
        self.number("GET resque:stat:processed").await
    }

    /// The failed jobs: id, exception and error.
    pub(super) async fn failed(&self) -> Vec<(String, String)> {
        let records = self.texts("LRANGE resque:failed 0 -1").await;
        let read = |record: &String| {
            let record: Value = serde_json::from_str(record).unwrap();
            (
                record["payload"]["id"].as_str().unwrap_or_default().to_owned(),
                record["exception"].as_str().unwrap().to_owned(),
            )
        };
        records.iter().map(read).collect()
    }

    /// Waits until so many jobs have succeeded or failed; returns how long that took.
    pub(super) async fn until_over(&self, count: u64, limit: Duration) -> Duration {
        let over = async || self.processed().await + self.number("LLEN resque:failed").await;
        let mut last = (0, 0);
        let result = timeout(
            limit,
            until("jobs end", limit * 2, async || {
                last = (over().await, self.running().await);
                last.0 >= count
            }),
        );
        let took = result.await.unwrap_or_else(|_| panic!("{} of {count} jobs ended, {} run", last.0, last.1));
        assert_eq!(over().await, count, "no job ends twice");
        took
    }

    /// Waits until no queue, no running hash and no delayed set has a job, and the nodes have written how the last ones ended.
    pub(super) async fn until_nothing_is_left(&self) {
        until("no job is left", SOON, async || jobs_left(&self.redis).await == 0).await;
        let is_over = |job: &JobLines| ["done", "failed", "deleted"].iter().any(|end| job.ended(end) > 0);
        until("the last ends are written", SOON, async || {
            let jobs = self.journal.read();
            let mut of_living = jobs.values().filter(|job| {
                let last = job.runs.last().map(|run| &*run.node);
                self.workers.iter().any(|worker| last == Some(&*worker.generation))
            });
            of_living.all(is_over)
        })
        .await;
    }

    /// The sum of a metric of a node, over the series that contain `label`.
    pub(super) async fn metric_of(&self, worker: usize, name: &str, label: &str) -> f64 {
        let answer = get(self.workers[worker].process.admin, "/metrics").await;
        let text = String::from_utf8(answer.body).unwrap();
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Pauses the queue `default`, or resumes it.
pub(super) async fn set_paused(addr: SocketAddr, is_paused: bool) {
    let operation = if is_paused { "pause" } else { "resume" };
    let answer = post_json(addr, &format!("/api/queues/default/{operation}"), "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The id in the text of a job.
pub(crate) fn id_of(text: &str) -> String {
    let job: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    job["id"].as_str().unwrap_or_default().to_owned()
}

/// A client that enqueues over one connection after another, as its node dies or not.
pub(crate) struct Enqueuer {
    addr: SocketAddr,
    stream: Option<TcpStream>,
}

impl Enqueuer {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Returns the status and the answer. Without an answer it is not known whether the job is stored.
    pub(crate) async fn enqueue(&mut self, job: &Value) -> io::Result<(u16, Value)> {
        self.post("/api/tasks", job, SOON).await
    }

    /// Posts to any path, and waits for so long for the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &Value, limit: Duration) -> io::Result<(u16, Value)> {
        self.send("POST", path, body, limit).await
    }

    /// Sends a request of any method.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> io::Result<(u16, Value)> {
        let exchange = async {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => TcpStream::connect(self.addr).await?,
            };
            let body = body.to_string();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                self.addr,
                body.len()
            );
            stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
            let mut bytes = Vec::new();
            loop {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if let Some(answer) = read_answer(&bytes) {
                    self.stream = Some(stream);
                    return Ok(answer);
                }
            }
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn read_answer(bytes: &[u8]) -> Option<(u16, Value)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
    let body = bytes.get(end + 4..end + 4 + length)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_slice(body).unwrap_or_default()))
}

//! Jobs that node-resque and our nodes hand to each other.

use std::time::Duration;

use phalanx_testkit::{Process, Redis, print};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::TOKEN;
use super::client::{get, post_json};
use super::peer::Actionhero;

/// A node of the tour that serves the queue `default` alone, and node-resque in a process of its own.
struct Queues {
    redis: Redis,
    theirs: Actionhero,
    tour: Process,
}

/// Makes node-resque's queue `queue` and its worker `worker` of the queue `theirs`, which keeps what it ran.
const CONNECT: &str = "
    const connection = { pkg: 'ioredis', host: '127.0.0.1', port: args, namespace: 'resque' };
    const ran = (globalThis.ran = []);
    const jobs = {
        count: { perform: async (input) => { ran.push(input); return true; } },
        fail: { perform: async (input) => { throw new Error(input.message); } },
    };
    globalThis.queue = new resque.Queue({ connection }, jobs);
    globalThis.queue.on('error', (error) => ran.push(String(error)));
    await globalThis.queue.connect();
    globalThis.worker = new resque.Worker({ connection, queues: ['theirs'], timeout: 50 }, jobs);
    globalThis.worker.on('error', (error) => ran.push(String(error)));
    await globalThis.worker.connect();
    globalThis.worker.start();
";

impl Queues {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let url = redis.url();
        let environment = [("REDIS_URL", &*url), ("PHALANX__TASKS__QUEUES", "default"), ("PHALANX_TITLE", "ours")];
        let (mut theirs, tour) =
            tokio::join!(Actionhero::start(redis.addr(), TOKEN), Process::start("tour", &environment));
        theirs.run(CONNECT, json!(redis.addr().port())).await.unwrap();
        Self { redis, theirs, tour }
    }

    /// Evaluates code there, where `queue` and `ran` are known.
    async fn run(&mut self, code: &str) -> Value {
        self.theirs.run(&format!("const {{ queue, ran, worker }} = globalThis; {code}"), json!(null)).await.unwrap()
    }

    /// Evaluates code there until it returns this.
    async fn until(&mut self, code: &str, expected: Value) {
        let began = Instant::now();
        loop {
            let found = self.run(code).await;
            if found == expected {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{code}: {found} is not {expected}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn enqueue(&self, name: &str, input: Value, queue: &str) {
        let job = json!({ "name": name, "input": input, "queue": queue });
        let answer = post_json(self.tour.addr, "/api/tasks", &job.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn finish(mut self) {
        self.run("await worker.end(); await queue.end()").await;
        self.theirs.is_alive().await;
    }
}

#[tokio::test]
async fn a_job_of_node_resque_runs_here() {
    let mut queues = Queues::start().await;
    queues.run("await queue.enqueue('default', 'count', [{ name: 'theirs' }])").await;
    queues.run("await queue.enqueueIn(1500, 'default', 'count', [{ name: 'theirs' }])").await;
    queues.run("await queue.enqueue('default', 'fail', [{ message: 'no such luck' }])").await;
    queues.until("return await queue.stats()", json!({ "processed": "2", "failed": "1" })).await;
    let counter = get(queues.tour.addr, "/api/counters/theirs").await.json();
    assert_eq!(counter["value"], 2, "{counter}");
    let failed = queues.run("return await queue.failed(0, -1)").await;
    print(format_args!("a failed job of ours, as node-resque reads it: {failed}"));
    let [failed] = failed.as_array().unwrap().as_slice() else { panic!("{failed}") };
    assert_eq!(failed["payload"]["class"], "fail");
    assert_eq!(failed["payload"]["args"], json!([{ "message": "no such luck" }]));
    assert_eq!((failed["queue"].as_str(), failed["exception"].as_str()), (Some("default"), Some("conflict")));
    assert!(failed["error"].as_str().unwrap().contains("no such luck"), "{failed}");
    assert!(failed["worker"].as_str().unwrap().starts_with("ours:"), "{failed}");
    assert!(failed["failed_at"].is_string() && failed["backtrace"].is_array(), "{failed}");
    let workers = queues.run("return await queue.workers()").await;
    let ours = workers.as_object().unwrap().iter().find(|(name, _)| name.starts_with("ours:"));
    assert_eq!(ours.map(|(_, queues)| queues.clone()), Some(json!("default")), "{workers}");
    // Its own tools act on it.
    queues.run("const [failed] = await queue.failed(0, 0); await queue.retryAndRemoveFailed(failed)").await;
    queues.until("return (await queue.stats()).failed", json!("2")).await;
    assert_eq!(queues.run("return await queue.failedCount()").await, json!(1));
    assert_eq!(queues.redis.command("KEYS phalanx:tour:running:*").await, "*0\r\n");
    queues.finish().await;
}

#[tokio::test]
async fn a_job_of_ours_runs_in_a_worker_of_node_resque() {
    let mut queues = Queues::start().await;
    queues.enqueue("count", json!({ "name": "ours" }), "theirs").await;
    queues.until("return ran", json!([{ "name": "ours" }])).await;
    queues.enqueue("fail", json!({ "message": "out of paper" }), "theirs").await;
    queues.until("return await queue.failedCount()", json!(1)).await;
    let stats = get(queues.tour.addr, "/api/tasks").await.json();
    assert_eq!((&stats["processed"], &stats["failed"]), (&json!(1), &json!(1)), "{stats}");
    // What failed there is repeated from here, and fails there once more.
    let retried = post_json(queues.tour.addr, "/api/failed/retry", "{}").await;
    assert_eq!(retried.json()["retried"], 1, "{retried:?}");
    let counts = "const { processed, failed } = await queue.stats(); return { processed, failed }";
    queues.until(counts, json!({ "processed": "1", "failed": "2" })).await;
    queues.until("return await queue.failedCount()", json!(1)).await;
    queues.finish().await;
}

//! The command `tasks` of an application, beside nodes of its cluster.

use std::process::Output;
use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal, run};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::SOON;
use crate::commands::assert_same_keys;

/// A cluster of one node, and the command.
struct Operator {
    redis: Redis,
    url: String,
}

impl Operator {
    async fn start() -> (Self, Process) {
        let redis = Redis::start().await;
        let url = redis.url();
        let node = Process::start("tour", &[("REDIS_URL", &url), ("PHALANX_TITLE", "one")]).await;
        (Self { redis, url }, node)
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        run("tour", &[&["tasks"], arguments].concat(), &[("REDIS_URL", &self.url)]).await
    }

    /// Runs a command that succeeds; returns what it prints.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--json`.
    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.run(&[arguments, &["--json"]].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same, of which each line has the keys of the sample.
    async fn documents(&self, arguments: &[&str], sample: &str) -> Vec<Value> {
        let lines = self.json(arguments).await;
        assert!(!lines.is_empty(), "{arguments:?}");
        lines.iter().for_each(|line| assert_same_keys(line, sample));
        lines
    }

    /// Runs a command that fails; returns the reason.
    async fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn stats(&self) -> Value {
        self.json(&["list"]).await.remove(0)
    }

    /// Waits until a number of the stats has this value.
    async fn until(&self, name: &str, value: u64) {
        let waiting = async {
            while self.stats().await[name] != value {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{name} is {value}"));
    }
}

#[tokio::test]
async fn jobs_are_enqueued_listed_and_ended_by_the_command() {
    let (operator, _node) = Operator::start().await;
    operator.run(&["pause", "low"]).await;
    let id = operator.run(&["enqueue", "sleep", r#"{"ms":60000}"#]).await.trim().to_owned();
    operator.until("running", 1).await;
    let running = operator.documents(&["running"], "tasks-running").await;
    assert_eq!(running.len(), 1, "{running:?}");
    let attempt = &running[0];
    let known = ["id", "task", "queue", "attempt", "node"].map(|name| attempt[name].clone());
    assert_eq!(known, [json!(id), json!("sleep"), json!("default"), json!(1), json!("one")]);
    assert!(attempt["ageMs"].as_u64().is_some_and(|age| age < 60_000), "{attempt}");
    let table = operator.run(&["running"]).await;
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split("  ").collect()).collect();
    assert!(cells.len() == 2 && table.starts_with("ID ") && cells[1][0] == id, "{table}");

    let waiting = operator.json(&["enqueue", "noop", "--queue", "low", "--id", "mine"]).await;
    assert_eq!(waiting, [json!({ "id": "mine", "enqueued": true })]);
    let again = operator.json(&["enqueue", "noop", "--queue", "low", "--id", "mine"]).await;
    assert_eq!(again, [json!({ "id": "mine", "enqueued": false })]);
    let later = operator.run(&["enqueue", "noop", "--delay", "1h"]).await.trim().to_owned();
    let stats = operator.stats().await;
    let low = stats["queues"].as_array().unwrap().iter().find(|queue| queue["queue"] == "low").unwrap();
    assert_eq!((&low["length"], &low["paused"]), (&json!(1), &json!(true)), "{stats}");
    assert!(low["oldestMs"].as_u64().is_some_and(|age| age < 60_000), "{stats}");
    assert_eq!((&stats["running"], &stats["delayed"]), (&json!(1), &json!(1)), "{stats}");
    let table = operator.run(&["list"]).await;
    assert!(table.starts_with("QUEUE") && table.lines().any(|line| line.contains("paused")), "{table}");
    assert_eq!(operator.documents(&["list", "low"], "tasks-waiting").await[0]["id"], "mine");
    operator.documents(&["list"], "tasks-list").await;
    assert_eq!(operator.json(&["list", "low", "--skip", "1"]).await, Vec::<Value>::new());

    let ended = operator.json(&["cancel", "--yes", &id]).await;
    assert_eq!(ended, [json!({ "id": id, "outcome": "cancelling" })]);
    operator.until("running", 0).await;
    assert_eq!(operator.json(&["delete", "--yes", &later]).await[0]["outcome"], "deleted");
    assert_eq!(operator.json(&["cancel", "--yes", "mine"]).await[0]["outcome"], "marked");
    operator.run(&["resume", "low"]).await;
    let refused = operator.fail(&["delete", "--yes", &later]).await;
    assert_eq!(refused, "error: not_found: there is no such job\n");
    // The commands have left nothing behind: one node, and its connection alone.
    assert_eq!(operator.redis.command("HLEN phalanx:tour:nodes").await, ":1\r\n");
    assert_eq!(operator.redis.command("HLEN phalanx:tour:links").await, ":1\r\n");
}

#[tokio::test]
async fn failed_jobs_are_listed_and_retried_by_the_command() {
    let (operator, _node) = Operator::start().await;
    let mut ids = Vec::new();
    for name in ["first", "second"] {
        let input = json!({ "message": format!("{name}\nline") }).to_string();
        ids.push(operator.run(&["enqueue", "fail", &input]).await.trim().to_owned());
        operator.until("failed", ids.len() as u64).await;
    }
    let failed = operator.json(&["failed"]).await;
    failed.iter().for_each(|job| assert_same_keys(job, "tasks-failed"));
    let of = |name: &str| failed.iter().map(|job| job[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("id"), ids);
    assert_eq!((&of("attempts")[0], &of("error")[1]), (&json!(3), &json!("second\nline")), "{failed:?}");
    assert!(of("failedAt").iter().all(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))), "{failed:?}");
    let table = operator.run(&["failed", "--limit", "1"]).await;
    assert!(table.lines().count() == 2 && table.contains("conflict: first"), "{table}");
    let refused = operator.fail(&["cancel", "--yes", &ids[0]]).await;
    assert!(refused.starts_with("error: conflict: the job has failed"), "{refused}");
    assert_eq!(operator.json(&["retry", &ids[0]]).await, [json!({ "retried": 1 })]);
    operator.until("failed", 2).await;
    let failed = operator.json(&["failed"]).await;
    assert_eq!(failed.iter().map(|job| job["id"].clone()).collect::<Vec<_>>(), [&*ids[1], &*ids[0]]);
    assert_eq!(operator.run(&["retry", "--all", "--yes"]).await, "2\n");
    operator.until("failed", 2).await;
    assert_eq!(operator.json(&["delete", "--yes", &ids[0]]).await[0]["outcome"], "deleted");
    let refused = operator.fail(&["retry", &ids[0]]).await;
    assert_eq!(refused, "error: not_found: no failed job has that id\n");
    // While another caller retries all.
    operator.redis.command("SET actionhero:lock:phalanx:tasks:retry other PX 60000").await;
    let refused = operator.fail(&["retry", "--all", "--yes"]).await;
    assert!(refused.starts_with("error: conflict: another caller"), "{refused}");
}

/// A node with one job that runs, and a second node.
#[tokio::test]
async fn a_quiet_node_runs_on_and_leaves_new_jobs_to_others() {
    let (operator, one) = Operator::start().await;
    let job = operator.run(&["enqueue", "sleep", r#"{"ms":60000}"#]).await.trim().to_owned();
    operator.until("running", 1).await;
    assert_eq!(operator.run(&["quiet", "one"]).await, "one is quiet\n");
    let environment = [("REDIS_URL", operator.url.as_str()), ("PHALANX_TITLE", "other")];
    let _other = Process::start("tour", &environment).await;
    let nodes = json!([{ "node": "one", "quiet": true }, { "node": "other", "quiet": false }]);
    assert_eq!(json!(operator.documents(&["quiet"], "tasks-quiet").await), nodes);
    for _ in 0..20 {
        operator.redis.command(&queued("sleep", "[{\"ms\":60000}]")).await;
    }
    // The four slots of the other node; the quiet one has three that are free.
    operator.until("running", 5).await;
    let running = operator.json(&["running"]).await;
    let on_one: Vec<&Value> = running.iter().filter(|attempt| attempt["node"] == "one").collect();
    assert!(on_one.len() == 1 && on_one[0]["id"] == json!(job), "{running:?}");
    let status = crate::client::get(one.addr, "/api/status").await.json();
    assert_eq!((&status["tasksQuiet"], &status["problems"]), (&json!(true), &json!([])), "{status}");
    let metrics = String::from_utf8(crate::client::get(one.admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_tasks_quiet 1"), "{metrics}");
    operator.json(&["cancel", "--yes", &job]).await;
    operator.until("running", 4).await;
    assert_eq!(operator.run(&["quiet", "one", "--off"]).await, "one fetches jobs\n");
    operator.until("running", 8).await;
    let refused = operator.fail(&["quiet", "none"]).await;
    assert_eq!(refused, "error: not_found: no node of the cluster has that id\n");
}

/// The command by which a resque tool enqueues.
fn queued(class: &str, args: &str) -> String {
    format!(r#"RPUSH resque:queue:default '{{"class":"{class}","queue":"default","args":{args}}}'"#)
}

#[tokio::test]
async fn a_command_that_cannot_be_carried_out_says_why() {
    let (operator, node) = Operator::start().await;
    let refused = operator.fail(&["enqueue", "nothing"]).await;
    assert!(refused.starts_with("error: unknown_task: "), "{refused}");
    let refused = operator.fail(&["enqueue", "sleep", r#"{"ms":"x"}"#]).await;
    assert!(refused.starts_with("error: invalid_input: ") && refused.contains("\n       ms: "), "{refused}");
    for wrong in [&["enqueue", "noop", "{"][..], &["nope"], &["retry"]] {
        assert_eq!(operator.output(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    let help = operator.run(&["--help"]).await;
    for command in ["list", "running", "enqueue", "failed", "retry", "cancel", "delete", "pause", "resume"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    drop(node);
    let embedded = run("tour", &["tasks", "list"], &[]).await;
    let reason = String::from_utf8(embedded.stderr).unwrap();
    assert_eq!(embedded.status.code(), Some(1), "{reason}");
    assert!(reason.contains("set REDIS_URL"), "{reason}");
    let away = run("tour", &["tasks", "list"], &[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    let reason = String::from_utf8(away.stderr).unwrap();
    assert_eq!(away.status.code(), Some(1), "{reason}");
    assert!(reason.starts_with("error: the backend does not answer"), "{reason}");
}

/// A node adds its counts every ten seconds, and the last ones when it stops.
#[tokio::test]
async fn the_minutes_of_tasks_are_printed_once_or_again_and_again() {
    let (operator, mut node) = Operator::start().await;
    for task in ["noop", "noop", "panic"] {
        operator.run(&["enqueue", task]).await;
    }
    operator.until("processed", 2).await;
    operator.until("failed", 1).await;
    node.signal(Signal::TERM);
    node.ended().await;
    let lines = operator.documents(&["stats"], "tasks-stats").await;
    let of = |line: &Value| (line["task"].clone(), line["processed"].clone(), line["failed"].clone());
    let counts: Vec<_> = lines.iter().map(of).collect();
    assert_eq!(counts, [(json!("noop"), json!(2), json!(0)), (json!("panic"), json!(1), json!(1))]);
    let text = operator.run(&["stats", "--minutes", "1440"]).await;
    assert!(text.starts_with("TASK") && text.contains("noop"), "{text}");
    // Its reader leaves after the second time.
    let watch = format!("{} tasks stats --watch --json | head -n 4", phalanx_testkit::binary("tour").display());
    let watched = tokio::process::Command::new("sh").args(["-c", &watch]).env("REDIS_URL", &operator.url).output();
    let watched = timeout(SOON, watched).await.expect("it ends").unwrap();
    let watched = String::from_utf8(watched.stdout).unwrap();
    assert_eq!(watched.lines().filter(|line| line.contains("noop")).count(), 2, "{watched}");
}

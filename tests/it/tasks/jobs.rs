//! Jobs from their enqueue to their end.

use std::time::Duration;

use phalanx_testkit::Process;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{counter, enqueue, enqueue_with, eventually, state, until_state};
use crate::client::{get, post_json, request};

#[tokio::test]
async fn a_job_that_a_client_enqueues_runs_once() {
    let node = Process::start("tour", &[]).await;
    let id = enqueue(node.addr, "count", json!({ "name": "once" })).await;
    until_state(node.addr, &id, "done").await;
    assert_eq!(counter(node.addr, "once").await, 1);
    let stats = get(node.addr, "/api/tasks").await.json();
    assert_eq!(
        (&stats["processed"], &stats["failed"], &stats["running"]),
        (&json!(1), &json!(0), &json!(0)),
        "{stats}"
    );
    assert_eq!(state(node.addr, "made-up").await, "unknown");
    let warning = "jobs are kept in the memory of this process";
    assert_eq!(node.stderr().matches(warning).count(), 1, "{}", node.stderr());
}

#[tokio::test]
async fn a_job_that_cannot_run_is_refused() {
    let node = Process::start("tour", &[]).await;
    for (job, status, code) in [
        (json!({ "name": "nothing" }), 404, "unknown_task"),
        (json!({ "name": "count" }), 422, "invalid_input"),
        (json!({ "name": "count", "input": { "name": 5 } }), 422, "invalid_input"),
        (json!({ "name": "noop", "queue": "a b" }), 422, "invalid_input"),
        (json!({ "name": "noop", "delayMs": -1 }), 422, "invalid_input"),
        (json!({ "name": "noop", "delayMs": 1e300 }), 422, "invalid_input"),
        (json!({ "name": "noop", "at": u64::MAX }), 422, "invalid_input"),
        (json!({ "name": "noop", "unique": "" }), 422, "invalid_input"),
    ] {
        let refused = post_json(node.addr, "/api/tasks", &job.to_string()).await;
        assert_eq!((refused.status, refused.error_code().as_str()), (status, code), "{job}");
    }
    let stats = get(node.addr, "/api/tasks").await.json();
    assert_eq!((&stats["processed"], &stats["delayed"]), (&json!(0), &json!(0)), "{stats}");
}

#[tokio::test]
async fn a_job_that_fails_is_repeated_and_one_that_never_succeeds_is_failed_until_it_is_retried() {
    let node = Process::start("tour", &[]).await;
    let flaky = enqueue(node.addr, "flaky", json!({ "name": "flaky", "failures": 3 })).await;
    let fails = enqueue(node.addr, "fail", json!({ "message": "as requested" })).await;
    until_state(node.addr, &flaky, "done").await;
    assert_eq!(counter(node.addr, "flaky").await, 1);
    until_state(node.addr, &fails, "failed").await;
    let failures = async || get(node.addr, "/api/lists/failures").await.json()["values"].clone();
    let one = json!(format!("{fails}: as requested"));
    eventually("on_failed ran", async || failures().await == json!([one])).await;
    let retried = post_json(node.addr, "/api/failed/retry", "{}").await.json();
    assert_eq!(retried["retried"], 1, "{retried}");
    eventually("it failed again", async || failures().await == json!([one, one])).await;
    assert_eq!(get(node.addr, "/api/tasks").await.json()["failed"], 1);
}

#[tokio::test]
async fn a_panic_fails_the_attempt_and_not_the_node() {
    let node = Process::start("tour", &[]).await;
    let id = enqueue(node.addr, "panic", json!({})).await;
    until_state(node.addr, &id, "failed").await;
    let next = enqueue(node.addr, "noop", json!({})).await;
    until_state(node.addr, &next, "done").await;
    assert!(node.stderr().contains("as requested"), "{}", node.stderr());
}

#[tokio::test]
async fn log_lines_of_an_attempt_name_its_job_and_the_request_that_enqueued_it() {
    let node = Process::start("tour", &[]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = ["content-type: application/json", &format!("traceparent: {trace}"), "x-request-id: r-17"];
    let job = br#"{"name":"fail","input":{"message":"as requested"}}"#;
    let answer = request(node.addr, "POST /api/tasks", &headers, job).await.json();
    let id = answer["id"].as_str().unwrap().to_owned();
    until_state(node.addr, &id, "failed").await;
    let (stderr, words) = (node.stderr(), ["fails as requested", "attempt{", &id, trace, "request="]);
    assert!(stderr.lines().any(|line| words.iter().all(|word| line.contains(word))), "{stderr}");
}

#[tokio::test]
async fn a_delayed_job_runs_when_it_is_due_and_can_be_deleted_before() {
    let node = Process::start("tour", &[]).await;
    let started = Instant::now();
    let job = json!({ "name": "count", "input": { "name": "late" }, "delayMs": 400 });
    let late = enqueue_with(node.addr, job).await;
    let never = enqueue_with(node.addr, json!({ "name": "noop", "delayMs": 3_600_000 })).await;
    assert_eq!(state(node.addr, &never).await, "delayed");
    let delete = async |id: &str| {
        let answer = request(node.addr, &format!("DELETE /api/tasks/{id}"), &[], b"").await;
        answer.json()["outcome"].clone()
    };
    assert_eq!(delete(&never).await, "deleted");
    assert_eq!(delete(&never).await, "not_found");
    until_state(node.addr, &late, "done").await;
    println!("due after 400 ms, seen done after {:?}", started.elapsed());
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_paused_queue_keeps_its_jobs_and_a_deleted_one_is_dropped() {
    let node = Process::start("tour", &[]).await;
    post_json(node.addr, "/api/queues/low/pause", "{}").await;
    let job = |name: &str| json!({ "name": "record", "input": { "list": "order", "value": name }, "queue": "low" });
    let kept = enqueue_with(node.addr, job("kept")).await;
    let dropped = enqueue_with(node.addr, job("dropped")).await;
    let other = enqueue(node.addr, "record", json!({ "list": "order", "value": "other" })).await;
    until_state(node.addr, &other, "done").await;
    assert_eq!(
        (state(node.addr, &kept).await.as_str(), state(node.addr, &dropped).await.as_str()),
        ("waiting", "waiting")
    );
    let deleted = request(node.addr, &format!("DELETE /api/tasks/{dropped}"), &[], b"").await.json();
    assert_eq!(deleted["outcome"], "marked");
    assert_eq!(get(node.addr, "/api/status").await.json()["taskQueueLength"], 2);
    post_json(node.addr, "/api/queues/low/resume", "{}").await;
    until_state(node.addr, &kept, "done").await;
    until_state(node.addr, &dropped, "unknown").await;
    let values = get(node.addr, "/api/lists/order").await.json()["values"].clone();
    assert_eq!(values, json!(["other", "kept"]));
}

#[tokio::test]
async fn tasks_that_block_their_threads_do_not_slow_down_clients() {
    let node = Process::start("tour", &[("PHALANX__TASKS__THREADS", "1")]).await;
    let mut blocking: Vec<String> = Vec::new();
    for _ in 0..4 {
        blocking.push(enqueue(node.addr, "block", json!({ "ms": 1000 })).await);
    }
    let running = async || get(node.addr, "/api/tasks").await.json()["running"] == json!(4);
    eventually("all slots block", running).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let started = Instant::now();
        get(node.addr, "/api/randomNumber").await;
        slowest = slowest.max(started.elapsed());
    }
    println!("slowest of 20 requests beside 4 blocked threads: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for id in blocking {
        until_state(node.addr, &id, "done").await;
    }
}

#[tokio::test]
async fn the_progress_and_the_result_of_a_job_are_shown() {
    let node = Process::start("tour", &[("PHALANX_TITLE", "shown")]).await;
    let id = enqueue(node.addr, "progress", json!({ "steps": 3, "ms": 300 })).await;
    let status = async || get(node.addr, &format!("/api/tasks/{id}")).await.json();
    eventually("it has taken a step", async || status().await["progress"]["step"] == 1).await;
    let running = status().await;
    assert_eq!(
        (&running["state"], &running["node"], &running["attempt"]),
        (&json!("running"), &json!("shown"), &json!(1))
    );
    assert_eq!(running.get("result"), None, "{running}");
    until_state(node.addr, &id, "done").await;
    let done = status().await;
    assert_eq!((&done["progress"], &done["result"]), (&json!({ "step": 3, "steps": 3 }), &json!({ "steps": 3 })));
}

#[tokio::test]
async fn an_action_runs_as_a_job() {
    let node = Process::start("tour", &[]).await;
    let action = json!({ "action": "createChatRoom", "params": { "name": "by-a-job" } });
    let id = enqueue(node.addr, "runAction", action).await;
    until_state(node.addr, &id, "done").await;
    let room: Value = get(node.addr, "/api/rooms/by-a-job").await.json();
    assert_eq!(room["room"], "by-a-job", "{room}");
}

#[tokio::test]
async fn a_node_with_no_workers_keeps_jobs_for_others() {
    let node = Process::start("tour", &[("TOUR_WORKERS", "0")]).await;
    let id = enqueue(node.addr, "noop", json!({})).await;
    assert_eq!(state(node.addr, &id).await, "waiting");
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    assert!(!metrics.contains("phalanx_tasks"), "a node that runs no jobs measures none");
}

/// Their jobs would wait for ever if no node served these queues.
#[tokio::test]
async fn a_node_names_the_queues_with_limits_that_it_leaves_to_others() {
    let node = Process::start("tour", &[("PHALANX__TASKS__QUEUES", "default, high, paced")]).await;
    let says_it = |line: &str| line.contains("leaves out queues of tasks with limits");
    eventually("it says so", async || node.stderr().lines().any(says_it)).await;
    let lines = node.stderr();
    let lines: Vec<&str> = lines.lines().filter(|line| says_it(line)).collect();
    assert!(lines.len() == 1 && lines[0].contains("limited") && !lines[0].contains("paced"), "{lines:?}");
}

#[tokio::test]
async fn batches_that_are_open_and_those_that_ended_are_counted() {
    let node = Process::start("tour", &[]).await;
    let has = async |sample: &str| {
        let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
        metrics.lines().any(|line| line == sample)
    };
    for batch in [json!({ "members": [] }), json!({ "members": [], "open": true, "deadlineMs": 1 })] {
        assert_eq!(post_json(node.addr, "/api/batches", &batch.to_string()).await.status, 200);
    }
    for end in ["finished", "expired"] {
        let sample = format!("phalanx_tasks_batches_total{{end=\"{end}\"}} 1");
        eventually(&sample, async || has(&sample).await).await;
    }
    let open = json!({ "members": [], "open": true });
    assert_eq!(post_json(node.addr, "/api/batches", &open.to_string()).await.status, 200);
    eventually("it is open", async || has("phalanx_tasks_batches_open 1").await).await;
}

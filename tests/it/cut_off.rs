//! The end of a node that does not wait for what runs: it names that, and happens whatever blocks.

use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal, check_time};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::{Socket, get, post_json};
use crate::cluster::until;
use crate::panics::SOON;

/// So long after an INT another one is not the same press of a key.
const AGAIN: Duration = Duration::from_millis(1100);

async fn enqueue(node: &Process, name: &str) -> String {
    let job = json!({ "name": name, "input": { "ms": 60_000 } });
    post_json(node.addr, "/api/tasks", &job.to_string()).await.json()["id"].as_str().unwrap().to_owned()
}

/// Ends a node that still has work to do by the second of two INT.
async fn interrupt_twice(node: &mut Process) {
    node.signal(Signal::INT);
    sleep(AGAIN).await;
    let begin = Instant::now();
    node.signal(Signal::INT);
    assert_eq!(node.ended().await.code(), Some(1));
    check_time("a second INT to the end", begin.elapsed(), Duration::from_secs(2));
}

/// Has a node wait for a call of an hour, which blocks its thread.
async fn block(node: &Process) -> TcpStream {
    let mut client = TcpStream::connect(node.addr).await.unwrap();
    client.write_all(b"GET /api/blockTest?sleepDuration=3600000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("the call has started", SOON, async || node.stderr().contains("an action starts")).await;
    client
}

#[tokio::test]
async fn jobs_and_verbs_that_are_cut_off_are_named() {
    let redis = Redis::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__REDIS__COMMAND_TIMEOUT", "1m")];
    let mut node = Process::start("tour", &environment).await;
    let (waits, blocks) = (enqueue(&node, "sleep").await, enqueue(&node, "block").await);
    until("they run", SOON, async || get(node.addr, "/api/tasks").await.json()["running"] == 2).await;
    let join = r#"{"event":"roomAdd","room":"defaultRoom","messageId":"join"}"#;
    let mut other = Socket::connect(node.addr).await;
    let mut socket = Socket::connect(node.addr).await;
    assert_eq!(redis.command("CLIENT PAUSE 60000 WRITE").await, "+OK\r\n");
    socket.send(join).await;
    other.request(r#"{"event":"detailsView"}"#).await; // the node has read what came before
    interrupt_twice(&mut node).await;
    let text = node.stderr();
    let reason = text.lines().last().unwrap();
    for name in
        [&format!("task sleep (job {waits})"), &format!("task block (job {blocks})"), "verb roomAdd (connection "]
    {
        assert!(reason.contains(name), "{name}: {reason}");
    }
}

#[tokio::test]
async fn a_node_whose_only_thread_is_blocked_handles_signals() {
    // Without the runtime of tasks, whose threads would read signals as well.
    let environment = [("PHALANX__GENERAL__THREADS", "1"), ("TOUR_WORKERS", "0"), ("RUST_LOG", "debug")];
    let mut node = Process::start("tour", &environment).await;
    let _client = block(&node).await;
    node.signal(Signal::USR1);
    let line = "a signal that means nothing to a node was ignored";
    until("it reads a signal", SOON / 2, async || node.stderr().contains(line)).await;
    interrupt_twice(&mut node).await;
    assert!(node.stderr().contains("interrupted a second time"), "{}", node.stderr());
}

#[tokio::test]
async fn a_node_whose_only_thread_is_blocked_ends_after_the_grace() {
    let environment = [("PHALANX__GENERAL__THREADS", "1"), ("PHALANX__GENERAL__GRACE", "1s"), ("RUST_LOG", "debug")];
    let mut node = Process::start("tour", &environment).await;
    let _client = block(&node).await;
    let begin = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(1));
    check_time("the end of a blocked node", begin.elapsed(), Duration::from_secs(1 + 10));
    let text = node.stderr();
    assert!(text.lines().last().unwrap().contains("did not stop within general.grace"), "{text}");
}

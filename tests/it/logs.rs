//! The log of a node whose stderr is stuck or closed: it delays nothing, and what is lost is counted.

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::net::SocketAddr;
use std::time::Duration;

use phalanx_testkit::{Process, Signal, check_time, command, free_port, print};
use rustix::process::{Pid, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Socket, get, request};
use crate::cluster::until;

/// A limit for every step that has no bound of its own.
const SOON: Duration = Duration::from_secs(20);

/// The longest time that a process waits for its log when it ends.
const END: Duration = Duration::from_millis(500);

/// The two ends of a pipe that is full and that nothing is read from.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[b'-'; 65_536]).unwrap(); // the size of a pipe: one byte more would wait
    (reader, writer)
}

/// The lines that a node has dropped on its way to stderr.
async fn dropped(admin: SocketAddr) -> u64 {
    let metrics = String::from_utf8(get(admin, "/metrics").await.body).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("phalanx_log_lines_dropped_total{sink=\"stderr\"} "));
    line.expect("the metric is there from the start").parse().unwrap()
}

/// The 99th percentile.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test]
async fn a_stuck_stderr_delays_neither_answers_nor_panics_nor_the_stop() {
    let (_reader, writer) = full_pipe();
    let environment = [("RUST_LOG", "debug")];
    let mut stuck = Process::spawn_with_stderr("tour", &environment, writer);
    stuck.ready().await;
    let flowing = Process::start("tour", &environment).await;

    // Eight mebibytes may wait, and a line of level debug holds the parameters.
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(500_000));
    let media = ["content-type: application/json"];
    for _ in 0..20 {
        assert_eq!(request(stuck.addr, "POST /api/echo", &media, body.as_bytes()).await.status, 200);
    }
    assert!(dropped(stuck.admin).await > 0);

    let (mut times, mut times_flowing) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        for (node, times) in [(&stuck, &mut times), (&flowing, &mut times_flowing)] {
            let start = Instant::now();
            assert_eq!(get(node.addr, "/api/status").await.status, 200);
            times.push(start.elapsed());
        }
    }
    let (late, usual) = (p99(&mut times), p99(&mut times_flowing));
    print(format!("p99 of a request: {late:?} with a stuck stderr, {usual:?} with a file"));
    assert!(late < usual * 3, "{late:?} instead of {usual:?}");

    for _ in 0..64 {
        assert_eq!(get(stuck.addr, "/api/panicTest").await.status, 500);
    }
    assert_eq!(get(stuck.admin, "/livez").await.status, 200);
    stuck.signal(Signal::TERM);
    let start = Instant::now();
    assert_eq!(stuck.ended().await.code(), Some(0));
    check_time("TERM to exit with a stuck stderr", start.elapsed(), END);
    assert!(stuck.rest_of_stdout().await.is_empty());
}

#[tokio::test]
async fn a_process_that_cannot_start_ends_with_its_reason_also_on_a_stuck_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, variable, code) in [
        (&["start"][..], ("PORT", port.as_str()), 1),
        (&["start"], ("PHALANX__WEB__PROT", "1"), 1),
        (&["start"], ("PHALANX__LOG__LEVEL", "=="), 1),
        (&["strat"], ("PORT", "0"), 2),
    ] {
        let (_reader, writer) = full_pipe();
        let mut command = command("tour", folder.path());
        command.args(arguments).stderr(writer).env("PHALANX__LOG__FILE", "true").env("PHALANX_TITLE", "stuck");
        let start = Instant::now();
        let ended = timeout(SOON, command.env(variable.0, variable.1).kill_on_drop(true).status()).await;
        assert_eq!(ended.expect("it ends").unwrap().code(), Some(code), "{arguments:?} {variable:?}");
        check_time(
            &format!("{} with {}={} on a stuck stderr", arguments[0], variable.0, variable.1),
            start.elapsed(),
            END,
        );
    }
    let log = std::fs::read_to_string(folder.path().join("log/stuck-development.log")).unwrap();
    let reason = log.lines().find(|line| line.contains("cannot listen")).expect("the file has the reason");
    assert_eq!(serde_json::from_str::<serde_json::Value>(reason).unwrap()["level"], "ERROR");
}

#[tokio::test]
async fn the_reason_of_the_end_is_json_where_the_log_is() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command("tour", folder.path());
    command.env("PORT", taken.local_addr().unwrap().port().to_string()).env("PHALANX_ENV", "production");
    let ended = timeout(SOON, command.kill_on_drop(true).output()).await.expect("it ends").unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let lines = String::from_utf8(ended.stderr).unwrap();
    let parsed: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = parsed.last().unwrap();
    assert!(last["level"] == "ERROR" && last["message"].as_str().unwrap().contains("cannot listen"), "{last}");
}

#[tokio::test]
async fn a_second_interrupt_ends_a_node_on_a_stuck_stderr_and_its_reason_comes_last() {
    let (reader, writer) = full_pipe();
    let mut node = Process::spawn_with_stderr("tour", &[], writer);
    node.ready().await;
    let mut socket = Socket::connect(node.addr).await;
    socket.send(r#"{"event":"action","params":{"action":"sleepTest","sleepDuration":60000}}"#).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    node.signal(Signal::INT);
    until("it stops", SOON, async || get(node.admin, "/readyz").await.status == 503).await;
    sleep(Duration::from_secs(1)).await; // earlier it would be the same press of a key
    node.signal(Signal::INT);
    let read = tokio::task::spawn_blocking(move || std::io::read_to_string(reader).unwrap());
    let start = Instant::now();
    assert_eq!(node.ended().await.code(), Some(1));
    check_time("a second INT to exit with a stuck stderr", start.elapsed(), END);
    let text = read.await.unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("a second time"), "{text}");
}

#[tokio::test]
async fn lines_to_a_closed_stderr_are_counted() {
    let (reader, writer) = pipe().unwrap();
    let mut node = Process::spawn_with_stderr("tour", &[], writer);
    drop(reader);
    node.ready().await;
    for _ in 0..10 {
        assert_eq!(get(node.addr, "/api/status").await.status, 200);
    }
    assert_eq!(get(node.addr, "/api/panicTest").await.status, 500);
    until("the lines are counted", SOON, async || dropped(node.admin).await >= 10).await;
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(node.rest_of_stdout().await.is_empty());
}

#[tokio::test]
async fn a_pipe_that_stdout_and_stderr_share_may_be_stuck_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, writer) = full_pipe();
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = command("tour", folder.path());
    command.stdout(writer.try_clone().unwrap()).stderr(writer).env("PHALANX__ADMIN__BIND", admin.to_string());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let is_up =
        async || tokio::net::TcpStream::connect(admin).await.is_ok() && get(admin, "/readyz").await.status == 200;
    until("it is ready", SOON, is_up).await;
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    let start = Instant::now();
    let ended = timeout(SOON, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0));
    check_time("TERM to exit with a stuck stdout and stderr", start.elapsed(), END);
}

#[tokio::test]
async fn panics_are_logged_whatever_the_filter_is() {
    let mut node = Process::start("tour", &[("RUST_LOG", "tour=info")]).await;
    assert_eq!(get(node.addr, "/api/panicTest").await.status, 500);
    until("the panic is logged", SOON, async || node.stderr().contains("panicked at examples/tour/src")).await;
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
}

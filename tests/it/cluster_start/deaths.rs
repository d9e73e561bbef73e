//! Workers and parents that are killed, stopped or blocked.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal, binary, check_time};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::{SECOND, Workers, ids, runs, signal};
use crate::client::{Socket, get};
use crate::cluster::until;
use crate::panics::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_replaced_at_once_under_its_number_and_the_port_stays_open() {
    let workers = Workers::start(2, &[]).await;
    let before = workers.pids().await;
    let begin = Instant::now();
    signal(before["phalanx-worker-1"], Signal::KILL);
    while !workers.parent.stderr().contains("phalanx-worker-1 was ended by signal 9") {
        assert_eq!(get(workers.parent.addr, "/api/randomNumber").await.status, 200);
    }
    check_time("the replacement of a killed worker is started", begin.elapsed(), SECOND);
    workers.until_ready(2).await;
    let after = workers.pids().await;
    assert_eq!(after.keys().cloned().collect::<Vec<_>>(), ids(&[1, 2]));
    assert_eq!(after["phalanx-worker-2"], before["phalanx-worker-2"]);
    let status = workers.status().await;
    assert_eq!(status["workers"][0]["restarts"], 1, "{status}");
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gives_no_sign_is_replaced() {
    let workers = Workers::start(2, &[("PHALANX__CLUSTER__BEAT_TIMEOUT", "3s")]).await;
    let before = workers.pids().await;
    signal(before["phalanx-worker-2"], Signal::STOP);
    workers.until_logged("phalanx-worker-2 is hung", 1).await;
    until("it is replaced", SOON, async || {
        workers.pids().await.get("phalanx-worker-2").is_some_and(|pid| *pid != before["phalanx-worker-2"])
    })
    .await;
    assert_eq!(workers.pids().await["phalanx-worker-1"], before["phalanx-worker-1"]);
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_was_stopped_replaces_no_worker() {
    let workers = Workers::start(2, &[("PHALANX__CLUSTER__BEAT_TIMEOUT", "2s")]).await;
    let before = workers.pids().await;
    workers.parent.freeze();
    sleep(2 * Duration::from_secs(2)).await; // twice the limit: nothing else shows that time has passed
    workers.parent.thaw();
    let checks = Instant::now();
    until("checks go on", SOON, async || checks.elapsed() > 4 * SECOND).await;
    assert_eq!(workers.pids().await, before);
    assert!(!workers.parent.stderr().contains("is hung"), "{}", workers.parent.stderr());
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_of_a_killed_parent_end_and_the_port_is_free() {
    let workers = Workers::start(3, &[]).await;
    let pids = workers.pids().await;
    let addr = workers.parent.addr;
    let mut socket = Socket::connect(addr).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    let begin = Instant::now();
    workers.parent.signal(Signal::KILL);
    until_gone(&pids, addr).await;
    check_time("workers of a dead parent end", begin.elapsed(), 5 * SECOND);
}

/// Waits until all workers have ended and their port is free. A process has its descriptors until the last of its threads
/// has ended, whatever the state of the first is.
pub(super) async fn until_gone(pids: &BTreeMap<String, i32>, addr: SocketAddr) {
    until("all workers end", SOON, async || {
        !pids.values().any(|pid| runs(*pid)) && TcpListener::bind(addr).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gets_term_from_elsewhere_is_replaced_and_not_counted() {
    let workers = Workers::start(1, &[]).await;
    for _ in 0..4 {
        let before = workers.pids().await["phalanx-worker-1"];
        signal(before, Signal::TERM);
        until("it is replaced", SOON, async || {
            workers.pids().await.get("phalanx-worker-1").is_some_and(|pid| *pid != before)
        })
        .await;
    }
    assert!(!workers.parent.stderr().contains("ended in 30 s"), "{}", workers.parent.stderr());
    workers.stop().await;
}

/// The processes whose parent this is, with their state.
pub(super) fn children(parent: u32) -> Vec<(i32, char)> {
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let state = words.next()?.chars().next()?;
        (words.next()?.parse() == Ok(parent)).then_some((pid, state))
    };
    all.filter_map(child).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_is_process_1_waits_for_orphans_of_its_workers() {
    let redis = Redis::start().await;
    let deployed = tempfile::tempdir().unwrap();
    let (program, tour) = (deployed.path().join("tour"), binary("tour"));
    std::os::unix::fs::symlink(&tour, &program).unwrap();
    let url = redis.url();
    let arguments = ["--pid", "--fork", program.to_str().unwrap(), "start", "cluster", "--workers", "1"];
    let mut first = Process::spawn_with("/usr/bin/unshare", &arguments, &[("REDIS_URL", &url)]);
    first.ready().await;
    let (parent, _) = children(first.pid())[0];
    // The next program leaves a hundred processes behind, which process 1 inherits when they end.
    let script = format!("#!/bin/sh\nfor n in $(seq 100); do (sleep 0.5 &); done\nexec {} \"$@\"\n", tour.display());
    fs::remove_file(&program).unwrap();
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    signal(parent, Signal::USR2);
    let inherited = || children(u32::try_from(parent).unwrap());
    until("it has inherited them", SOON, async || inherited().len() > 50).await;
    until("the roll is complete", SOON, async || first.stderr().contains("roll 1 is complete")).await;
    until("only the worker is left", SOON, async || inherited().len() == 1).await;
    signal(parent, Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.stderr());
}

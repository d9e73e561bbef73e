//! The start and the stop of all workers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use phalanx_supervisor::{ControlClient, ControlRequest, MAX_COMMANDS};
use phalanx_testkit::{Process, Redis, Signal, check_time, free_port, print, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{SECOND, Workers, runs, signal};
use crate::client::get;
use crate::cluster::until;
use crate::drain::load::{Load, Outcomes, tour_files};
use crate::panics::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parent_answers_operators_and_cleans_up_after_itself() {
    let mut workers = Workers::start(2, &[]).await;
    let ready = get(workers.parent.admin, "/readyz").await;
    assert_eq!((ready.status, &ready.body[..]), (200, &b"2 of 2 workers ready"[..]));
    let metrics = String::from_utf8(get(workers.parent.admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_supervisor_workers{state=\"ready\"} 2"), "{metrics}");
    assert_eq!(get(workers.parent.admin, "/nothing").await.status, 404);
    let folder = workers.parent.folder().join("pids");
    let socket = folder.join("cluster.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(folder.join("cluster.pid")).unwrap(), workers.parent.pid().to_string());
    let status = workers.command(&["cluster", "status", "--json"]).await.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!((&status["state"], &status["workers"][1]["id"]), (&"serving".into(), &"phalanx-worker-2".into()));
    let table = String::from_utf8(workers.command(&["cluster", "status"]).await.stdout).unwrap();
    assert!(table.starts_with("parent ") && table.contains("\nphalanx-worker-2  "), "{table}");
    let begin = Instant::now();
    let output = workers.command(&["cluster", "stop", "--yes"]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(workers.parent.ended().await.code(), Some(0), "{}", workers.parent.stderr());
    check_time("a stop without load", begin.elapsed(), 3 * SECOND);
    assert!(!socket.exists() && !folder.join("cluster.pid").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_how_many_commands_wait_for_workers_and_how_many_could_not() {
    let workers = Workers::start(1, &[]).await;
    let path = workers.parent.folder().join("pids/cluster.sock");
    let roll = |_| ControlClient::send(&path, &ControlRequest::Roll).unwrap();
    let commands: Vec<ControlClient> = (0..MAX_COMMANDS + 1).map(roll).collect();
    until("all are counted", SOON, async || {
        let metrics = String::from_utf8(get(workers.parent.admin, "/metrics").await.body).unwrap();
        // Of those that wait, the first is answered once its roll is complete.
        let waiting = ["64", "63"].map(|count| format!("phalanx_supervisor_waiting_commands {count}\n"));
        waiting.iter().any(|line| metrics.contains(line))
            && metrics.contains("phalanx_bound_reached_total{bound=\"cluster.commands\"} 1\n")
    })
    .await;
    drop(commands);
    workers.stop().await;
}

#[tokio::test]
async fn exactly_one_of_two_parents_of_one_folder_starts() {
    let workers = Workers::start(1, &[]).await;
    let pids = workers.parent.folder().join("pids");
    let url = workers.redis.url();
    let environment = [("PHALANX__PATHS__PID", pids.to_str().unwrap()), ("REDIS_URL", &url)];
    let refused = run("tour", &["start", "cluster"], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("it runs already: process {}", workers.parent.pid())), "{text}");
    assert!(workers.status().await["state"] == "serving");
    workers.stop().await;
}

#[tokio::test]
async fn clients_are_refused_until_a_worker_is_ready_and_a_stop_ends_the_boot() {
    let port = free_port().to_string();
    let environment = [("REDIS_URL", "redis://127.0.0.1:1"), ("PORT", &port)];
    let mut parent = Process::spawn_with("tour", &["start", "cluster"], &environment);
    until("workers boot", SOON, async || parent.stderr().contains("the backend cannot be reached yet")).await;
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err());
    let begin = Instant::now();
    parent.signal(Signal::TERM);
    assert_eq!(parent.ended().await.code(), Some(0), "{}", parent.stderr());
    check_time("a stop while workers boot", begin.elapsed(), SECOND);
}

#[tokio::test]
async fn a_start_whose_worker_cannot_boot_ends_with_its_reason() {
    let redis = Redis::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX_ENV", "production")];
    let mut parent = Process::spawn_with("tour", &["start", "cluster"], &environment);
    assert_eq!(parent.ended().await.code(), Some(1));
    let text = parent.stderr();
    let last = text.lines().last().unwrap();
    assert!(last.contains("general.server_token is the default"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_int_cuts_what_still_runs() {
    let mut workers = Workers::start(2, &[]).await;
    let pids = workers.pids().await;
    let mut request = TcpStream::connect(workers.parent.addr).await.unwrap();
    let text = "GET /api/sleepTest?sleepDuration=20000 HTTP/1.1\r\nhost: x\r\n\r\n";
    request.write_all(text.as_bytes()).await.unwrap();
    until("a worker has it", SOON, async || {
        let status = workers.status().await;
        status["workers"].as_array().unwrap().iter().any(|worker| worker["connections"] == 1)
    })
    .await;
    workers.parent.signal(Signal::INT);
    workers.until_logged("all workers are to stop", 1).await;
    let begin = Instant::now();
    until("more than a second has passed", SOON, async || begin.elapsed() > SECOND + SECOND / 2).await;
    let begin = Instant::now();
    workers.parent.signal(Signal::INT);
    assert_eq!(workers.parent.ended().await.code(), Some(1), "{}", workers.parent.stderr());
    check_time("a cut", begin.elapsed(), 2 * SECOND);
    let log = workers.parent.stderr();
    let last = log.lines().last().unwrap();
    let named = "error: interrupted a second time: running calls are cut off: phalanx-worker-";
    assert!(last.starts_with(named) && last.contains(": action sleepTest (http, request "), "{log}");
    assert!(!pids.into_values().any(runs));
    let mut rest = Vec::new();
    let _ = request.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "the request was cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_int_to_the_whole_group_of_processes_lets_calls_end() {
    let mut workers = Workers::start(2, &[]).await;
    let mut request = TcpStream::connect(workers.parent.addr).await.unwrap();
    let text = "GET /api/sleepTest?sleepDuration=3000 HTTP/1.1\r\nhost: x\r\n\r\n";
    request.write_all(text.as_bytes()).await.unwrap();
    until("a worker has it", SOON, async || {
        let status = workers.status().await;
        status["workers"].as_array().unwrap().iter().any(|worker| worker["connections"] == 1)
    })
    .await;
    for pid in workers.pids().await.into_values() {
        signal(pid, Signal::INT);
    }
    workers.parent.signal(Signal::INT);
    let mut response = String::new();
    request.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert_eq!(workers.parent.ended().await.code(), Some(0), "{}", workers.parent.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_all_workers_stop_under_load() {
    let public = tour_files();
    let folder = public.path().to_str().unwrap();
    let mut workers = Workers::start(2, &[("PHALANX__PATHS__PUBLIC", folder)]).await;
    let load = Load::on_tour(workers.parent.addr);
    load.until_more(1).await;
    let begin = Instant::now();
    workers.parent.signal(Signal::TERM);
    let all = Outcomes::print(load.ended().await);
    print(format_args!("all clients have ended after {:?}", begin.elapsed()));
    assert_eq!(all.failed, 0, "{}", workers.parent.stderr());
    assert_eq!(workers.parent.ended().await.code(), Some(0), "{}", workers.parent.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_have_the_roles_of_their_entry_and_only_those_with_web_get_clients() {
    let config = tempfile::tempdir().unwrap();
    let kinds = "[[cluster.processes]]\nname = \"jobs\"\nroles = [\"worker\", \"scheduler\"]\n\
                 [[cluster.processes]]\nname = \"web\"\nroles = [\"web\"]\nworkers = 2\n";
    fs::write(config.path().join("local.toml"), kinds).unwrap();
    let redis = Redis::start().await;
    let (url, folder) = (redis.url(), config.path().to_str().unwrap());
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX_CONFIG", folder)];
    let mut parent = Process::spawn_with("tour", &["start", "cluster"], &environment);
    parent.ready().await;
    let workers = Workers { parent, redis };
    workers.until_ready(3).await;
    let status = workers.status().await;
    let each = status["workers"].as_array().unwrap().iter();
    let each: Vec<String> = each.map(|worker| format!("{} {}", worker["id"], worker["roles"])).collect();
    assert_eq!(
        each,
        [
            r#""phalanx-worker-jobs-1" ["worker","scheduler"]"#,
            r#""phalanx-worker-1" ["web"]"#,
            r#""phalanx-worker-2" ["web"]"#,
        ]
    );
    for _ in 0..20 {
        assert_eq!(get(workers.parent.addr, "/api/randomNumber").await.status, 200);
    }
    workers.parent.signal(Signal::TTIN);
    workers.until_ready(4).await;
    assert!(workers.pids().await.contains_key("phalanx-worker-3"));
    workers.roll().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_parents_that_start_at_once_starts() {
    let redis = Redis::start().await;
    let pids = tempfile::tempdir().unwrap();
    let url = redis.url();
    let environment = [("PHALANX__PATHS__PID", pids.path().to_str().unwrap()), ("REDIS_URL", url.as_str())];
    let start = |_| Process::spawn_with("tour", &["start", "cluster", "--workers", "1"], &environment);
    let mut parents: Vec<Process> = (0..4).map(start).collect();
    let mut ready = Vec::new();
    for parent in &mut parents {
        ready.push(parent.is_ready().await);
    }
    assert_eq!(ready.iter().filter(|ready| **ready).count(), 1, "{ready:?}");
    for (mut parent, is_ready) in parents.into_iter().zip(ready) {
        if is_ready {
            parent.signal(Signal::TERM);
        }
        let code = parent.ended().await.code();
        assert_eq!(code, Some(i32::from(!is_ready)), "{}", parent.stderr());
        assert!(is_ready || parent.stderr().contains("it runs already"), "{}", parent.stderr());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_parent_and_workers_are_reopened() {
    let workers = Workers::start(2, &[("PHALANX__LOG__FILE", "true")]).await;
    let folder = workers.parent.folder().join("log");
    let names = ["cluster", "phalanx-worker-1", "phalanx-worker-2"].map(|id| format!("{id}-development.log"));
    for name in &names {
        fs::rename(folder.join(name), folder.join(format!("{name}.old"))).unwrap();
    }
    assert!(workers.command(&["cluster", "reopen"]).await.status.success());
    workers.parent.signal(Signal::HUP);
    until("all are there again", SOON, async || {
        get(workers.parent.addr, "/api/randomNumber").await;
        names.iter().all(|name| folder.join(name).exists())
    })
    .await;
    workers.stop().await;
}

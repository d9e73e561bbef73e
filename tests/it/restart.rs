//! A restart in place: it takes the program that is deployed by then, and its clients wait instead of being refused.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use phalanx_testkit::{Process, Redis, Signal, binary, command, free_port, print, run};
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, timeout};

use crate::client::get;
use crate::cluster::until;
use crate::drain::load::{Load, Outcomes, tour_files};
use crate::panics::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_none_is_refused_while_a_node_restarts_under_load() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let public = tour_files();
    let folder = public.path().to_str().unwrap();
    let mut node = Process::start("tour", &[("PHALANX__PATHS__PUBLIC", folder), ("RUST_LOG", "warn")]).await;
    let (addr, admin) = (node.addr, node.admin);
    let load = Load::on_tour(addr);
    let mut restarts = Vec::new();
    for _ in 0..rounds {
        load.until_more(1).await;
        let begin = Instant::now();
        node.signal(Signal::USR2);
        node.ready().await;
        restarts.push(begin.elapsed());
        assert_eq!((node.addr, node.admin), (addr, admin));
    }
    let all = Outcomes::print(load.end().await);
    restarts.sort();
    print(format_args!("{rounds} restarts: median {:?}, longest {:?}", restarts[restarts.len() / 2], restarts.last()));
    assert_eq!((all.failed, all.refused), (0, 0), "{}", node.stderr());
    node.signal(Signal::TERM);
    assert!(node.ended().await.success(), "{}", node.stderr());
}

/// The targets of a process's descriptors.
fn descriptors(pid: u32) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
}

#[tokio::test]
async fn the_pid_file_is_locked_all_the_time_and_no_descriptor_is_left_over() {
    let mut node = Process::start("tour", &[("PHALANX_TITLE", "one")]).await;
    let path = node.folder().join("pids/one.pid");
    let before = descriptors(node.pid()).len();
    let has_ended = Arc::<AtomicBool>::default();
    let watch = std::thread::spawn({
        let (path, has_ended) = (path.clone(), has_ended.clone());
        move || {
            let mut looks = 0;
            while !has_ended.load(Relaxed) {
                let file = File::open(&path).expect("it is there all the time");
                assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)), "look {looks}");
                looks += 1;
            }
            looks
        }
    });
    for _ in 0..3 {
        node.signal(Signal::USR2);
        node.ready().await;
    }
    has_ended.store(true, Relaxed);
    print(format_args!("{} looks at the lock during three restarts", watch.join().unwrap()));
    assert_eq!(fs::read_to_string(&path).unwrap(), node.pid().to_string());
    until("as many descriptors are open", SOON, async || descriptors(node.pid()).len() == before).await;
    assert_eq!(node.stderr().matches("there is no Redis: queued jobs").count(), 3, "{}", node.stderr());
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
    assert!(!path.exists());
}

/// The descriptors of a process that an exec does not close.
fn inheritable_descriptors(pid: u32) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().map(|entry| entry.unwrap().path());
    let inheritable = all.filter(|info| {
        let text = fs::read_to_string(info).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0)
    });
    inheritable.collect()
}

/// Starts a program in a folder that `PWD` names.
async fn start_in(program: &str, folder: &Path, path: &str) -> (Child, Lines<BufReader<ChildStdout>>, SocketAddr) {
    let mut command = command(folder.join("app").to_str().unwrap(), folder);
    command.env("PWD", folder).env("PATH", path).arg0(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = addr_of(&mut lines).await;
    (child, lines, addr)
}

/// The address for clients of a node that gets ready.
async fn addr_of(lines: &mut Lines<BufReader<ChildStdout>>) -> SocketAddr {
    let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    line.strip_prefix("listening on http://").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_restart_follows_the_link_that_a_deploy_has_switched() {
    let home = tempfile::tempdir_in(binary("tour").parent().unwrap()).unwrap();
    for (release, program) in [("7", "tour"), ("8", "hello")] {
        fs::create_dir(home.path().join(release)).unwrap();
        fs::hard_link(binary(program), home.path().join(release).join("app")).unwrap();
    }
    let current = home.path().join("current");
    let usual = std::env::var("PATH").unwrap();
    for (name, path) in [("./app", usual.clone()), ("app", format!("{}:{usual}", current.display()))] {
        symlink("7", home.path().join("next")).unwrap();
        fs::rename(home.path().join("next"), &current).unwrap();
        let (node, mut lines, addr) = start_in(name, &current, &path).await;
        assert_eq!(get(addr, "/api/greet/Ada").await.status, 404);
        symlink("8", home.path().join("next")).unwrap();
        fs::rename(home.path().join("next"), &current).unwrap();
        let pid = node.id().unwrap();
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::USR2).unwrap();
        let addr = addr_of(&mut lines).await;
        assert_eq!(get(addr, "/api/greet/Ada").await.json()["text"], "Hello, Ada!", "{name}");
        assert!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().ends_with("8"));
    }
}

#[tokio::test]
async fn stdin_is_the_same_after_a_restart_and_children_inherit_nothing() {
    let home = tempfile::tempdir().unwrap();
    let input = home.path().join("input");
    fs::write(&input, "").unwrap();
    let mut command = command("tour", home.path());
    command.stdin(File::open(&input).unwrap()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut node = command.spawn().unwrap();
    let pid = node.id().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let mut inheritable = Vec::new();
    for _ in 0..2 {
        for start in ["listening", "admin"] {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap(), input);
        inheritable.push(inheritable_descriptors(pid));
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::USR2).unwrap();
    }
    assert_eq!(inheritable[0], inheritable[1]);
}

#[tokio::test]
async fn a_restart_takes_the_address_that_is_set_by_then() {
    let ports = [free_port(), free_port()];
    let config = tempfile::tempdir().unwrap();
    let set = |ip: &str, port| {
        fs::write(config.path().join("local.toml"), format!("[web]\nbind = \"{ip}\"\nport = {port}")).unwrap();
        SocketAddr::new(ip.parse().unwrap(), port)
    };
    set("127.0.0.1", ports[0]);
    let folder = config.path().to_str().unwrap();
    let mut node = Process::start("tour", &[("PORT", ""), ("BIND", ""), ("PHALANX_CONFIG", folder)]).await;
    for (ip, port) in [("127.0.0.1", ports[1]), ("0.0.0.0", ports[1]), ("127.0.0.1", ports[0])] {
        let (before, addr) = (node.addr, set(ip, port));
        node.signal(Signal::USR2);
        node.ready().await;
        assert_eq!(node.addr, addr);
        assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], addr.port())), "/api/status").await.status, 200);
        if before.port() != addr.port() {
            let refused = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], before.port()))).await;
            assert!(refused.is_err(), "{before}");
        }
    }
}

#[tokio::test]
async fn clients_of_a_node_that_is_restarted_while_redis_is_away_are_served_after_another_restart() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    let mut node = Process::start("tour", &[("REDIS_URL", &url)]).await;
    redis.kill().await;
    let waits = |times| {
        let node = &node;
        async move || node.stderr().matches("the backend cannot be reached yet").count() > times
    };
    node.signal(Signal::USR2);
    until("it waits for redis", SOON, waits(0)).await;
    let mut client = TcpStream::connect(node.addr).await.unwrap();
    client.write_all(b"GET /api/randomNumber HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    node.signal(Signal::USR2);
    until("it has begun anew", SOON, async || node.stderr().matches("requested by a signal").count() == 2).await;
    redis.start_again().await;
    let mut response = String::new();
    timeout(SOON, client.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    node.ready().await;
}

#[tokio::test]
async fn the_hidden_option_of_a_restart_is_refused_on_a_command_line() {
    for arguments in [&["--in-place"][..], &["start", "--in-place"]] {
        let refused = run("tour", arguments, &[]).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        let expected = "error: --in-place is for a node that restarts in place alone: start a node without it\n";
        assert_eq!((refused.status.code(), text.as_str()), (Some(2), expected));
    }
    let help = String::from_utf8(run("tour", &["start", "--help"], &[]).await.stdout).unwrap();
    assert!(!help.contains("in-place"), "{help}");
}

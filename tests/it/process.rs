//! A node as a process: its ready line, signals, the command line, invalid settings.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use phalanx::config::Config;
use phalanx_testkit::{Process, Signal, binary, check_time, command, free_port, run};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::{Socket, get};
use crate::cluster::until;

/// A limit for every step of a process.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn term_and_int_stop_a_node_after_it_answered_accepted_calls() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Process::start("tour", &[]).await;
        let addr = node.addr;
        assert_eq!(get(node.admin, "/readyz").await.status, 200);
        let mut socket = Socket::connect(addr).await;
        socket.send(r#"{"event":"action","messageId":1,"params":{"action":"sleepTest","sleepDuration":700}}"#).await;
        socket.request(r#"{"event":"detailsView","messageId":2}"#).await;
        node.signal(signal);
        assert_eq!(socket.read().await["sleepDuration"], 700);
        assert_eq!(socket.closed().await, 1001);
        assert!(node.ended().await.success(), "{}", node.stderr());
    }
}

#[tokio::test]
async fn a_second_interrupt_does_not_wait_for_running_calls_and_a_second_term_does() {
    let mut node = Process::start("tour", &[("RUST_LOG", "debug")]).await;
    let mut socket = Socket::connect(node.addr).await;
    socket.send(r#"{"event":"action","params":{"action":"sleepTest","sleepDuration":60000}}"#).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    let read = async |times| {
        let lines = || node.stderr().matches("requested by a signal").count();
        until("it reads the signal", SOON, async || lines() == times).await;
    };
    for (times, signal) in (1..).zip([Signal::TERM, Signal::TERM, Signal::INT]) {
        node.signal(signal);
        read(times).await;
    }
    assert_eq!(get(node.admin, "/readyz").await.status, 503);
    sleep(Duration::from_secs(1)).await; // earlier it would be the same press of a key
    let begin = Instant::now();
    node.signal(Signal::INT);
    assert_eq!(node.ended().await.code(), Some(1));
    check_time("a second INT to the end", begin.elapsed(), Duration::from_secs(2));
    let reason = node.stderr();
    let reason = reason.lines().last().unwrap();
    assert!(reason.contains("a second time") && reason.contains(": action sleepTest (websocket, "), "{reason}");
    assert!(node.stderr().contains("sleepDuration"), "params are logged at debug: {}", node.stderr());
}

#[tokio::test]
async fn a_node_raises_its_limit_of_file_descriptors_to_the_maximum() {
    let limit = getrlimit(Resource::Nofile);
    let low = limit.maximum.map_or(4096, |most| most / 2);
    setrlimit(Resource::Nofile, Rlimit { current: Some(low), maximum: limit.maximum }).unwrap();
    let node = Process::start("tour", &[]).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{line}");
    assert_ne!(fields[3], low.to_string(), "{line}");
}

/// When it grows in a process with threads, each growth stops one of them in the kernel, for seconds on a busy machine.
#[tokio::test]
async fn the_table_of_file_descriptors_has_room_for_all_connections_from_the_start() {
    let mut node = Process::start("tour", &[]).await;
    check_room_for_descriptors(node.pid());
    node.signal(Signal::USR2);
    node.ready().await;
    check_room_for_descriptors(node.pid());
}

fn check_room_for_descriptors(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    let size: usize = size.trim().parse().unwrap();
    let (config, most) = (Config::default(), getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    let connections = config.web.max_connections + config.websocket.max_connections;
    assert!(size as u64 >= most.min(connections as u64), "{status}");
}

#[tokio::test]
async fn usr2_restarts_in_place_and_hup_does_nothing_bad() {
    let mut node = Process::start("tour", &[]).await;
    let before = get(node.addr, "/api/status").await.json();
    node.signal(Signal::HUP);
    let pid = node.pid();
    node.signal(Signal::USR2);
    node.ready().await;
    let after = get(node.addr, "/api/status").await.json();
    assert_eq!(node.pid(), pid);
    assert_ne!(before["generation"], after["generation"]);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn signals_during_a_restart_do_not_end_the_new_program() {
    let mut node = Process::start("tour", &[]).await;
    for _ in 0..3 {
        node.signal(Signal::USR2);
        let pid = Pid::from_raw(node.pid() as i32).unwrap();
        let floods = async {
            loop {
                for signal in [Signal::HUP, Signal::USR1] {
                    kill_process(pid, signal).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = node.ready() => {}
            () = floods => {}
        }
    }
    assert_eq!(get(node.addr, "/api/status").await.status, 200);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success(), "{}", node.stderr());
}

#[tokio::test]
async fn signals_without_a_meaning_are_logged_and_ignored() {
    let mut node = Process::start("tour", &[]).await;
    let signals = [
        (Signal::USR1, "SIGUSR1"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::POWER, "SIGPWR"),
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::TTIN, "SIGTTIN"),
        (Signal::TTOU, "SIGTTOU"),
    ];
    for (signal, name) in signals {
        node.signal(signal);
        let logged = async || node.stderr().contains(&format!("signal=\"{name}\""));
        until("the signal is logged", SOON, logged).await;
    }
    assert_eq!(node.stderr().matches("means nothing to a node").count(), signals.len(), "{}", node.stderr());
    assert_eq!(get(node.addr, "/api/status").await.status, 200);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success(), "{}", node.stderr());
}

#[tokio::test]
async fn a_node_listens_on_localhost_by_name() {
    let bind = [("BIND", "localhost"), ("PHALANX__ADMIN__BIND", "localhost:0")];
    let node = Process::start("tour", &bind).await;
    assert!(node.addr.ip().is_loopback() && node.admin.ip().is_loopback());
    assert_eq!(get(node.addr, "/api/status").await.status, 200);
}

#[tokio::test]
async fn a_copy_of_an_example_outside_of_the_repository_uses_the_folders_beside_it_and_misses_none_silently() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("chat");
    fs::copy(binary("chat"), &program).unwrap();
    let config = async |folder: &Path| {
        let mut command = command(program.to_str().unwrap(), folder);
        command.arg("config").env_remove("CARGO_MANIFEST_DIR").output().await.unwrap()
    };
    let refused = config(home.path()).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    let missing = home.path().join("config");
    assert!(text.contains(&format!("the config folder: {} does not exist", missing.display())), "{text}");
    assert_eq!(refused.status.code(), Some(1));
    fs::create_dir(&missing).unwrap();
    fs::write(missing.join("default.toml"), "[rooms]\nstart = [\"den\"]").unwrap();
    let text = String::from_utf8(config(home.path()).await.stdout).unwrap();
    assert!(text.contains("start = [\"den\"]"), "{text}");
}

#[tokio::test]
async fn usr2_executes_the_program_that_was_deployed_meanwhile() {
    let (tour, hello) = (binary("tour"), binary("hello"));
    let deployments: [fn(&Path, &Path) -> io::Result<()>; 2] =
        [|file, at| fs::hard_link(file, at), |file, at| symlink(file, at)];
    for deploy in deployments {
        let folder = tempfile::tempdir_in(tour.parent().unwrap()).unwrap();
        let (program, next) = (folder.path().join("app"), folder.path().join("next"));
        deploy(&tour, &program).unwrap();
        let mut node = Process::start(program.to_str().unwrap(), &[]).await;
        assert_eq!(get(node.addr, "/api/greet/Ada").await.status, 404);
        deploy(&hello, &next).unwrap();
        fs::rename(&next, &program).unwrap();
        node.signal(Signal::USR2);
        node.ready().await;
        assert_eq!(get(node.addr, "/api/greet/Ada").await.json()["text"], "Hello, Ada!");
    }
}

/// Sends the head of a request and returns once the node has accepted it and waits for the body.
async fn open_request(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST /api/echo HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: 12\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn term_while_a_restart_waits_for_calls_stops_the_node_and_cancels_none() {
    let mut node = Process::start("tour", &[("PHALANX_TITLE", "drains")]).await;
    let mut request = open_request(node.addr).await;
    node.signal(Signal::USR2);
    until("the node restarts", SOON, async || get(node.admin, "/readyz").await.status == 503).await;
    node.signal(Signal::TERM);
    until("it has received both signals", SOON, async || node.stderr().matches("requested by a signal").count() == 2)
        .await;
    assert_eq!(fs::read_to_string(node.folder().join("pids/drains.pid")).unwrap(), node.pid().to_string());
    request.write_all(br#"{"text":"a"}"#).await.unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(node.ended().await.success(), "{}", node.stderr());
    assert!(!node.folder().join("pids/drains.pid").exists());
}

#[tokio::test]
async fn calls_that_outlast_the_grace_end_the_process_with_1() {
    let mut node = Process::start("tour", &[("PHALANX__GENERAL__GRACE", "100ms")]).await;
    let mut socket = Socket::connect(node.addr).await;
    socket.send(r#"{"event":"action","params":{"action":"sleepTest","sleepDuration":60000}}"#).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(1));
    let reason = node.stderr();
    let reason = reason.lines().last().unwrap();
    assert!(reason.contains("general.grace was over"), "{reason}");
    assert!(reason.contains(": action sleepTest (websocket, request "), "it names the call: {reason}");
}

#[tokio::test]
async fn a_node_that_still_waits_for_its_redis_obeys_signals() {
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let bind = admin.to_string();
    let environment =
        [("REDIS_URL", "redis://127.0.0.1:1"), ("PHALANX__ADMIN__BIND", bind.as_str()), ("PHALANX_TITLE", "waits")];
    let is_starting = async || TcpStream::connect(admin).await.is_ok();
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Process::spawn("tour", &environment);
        until("it waits for redis", SOON, async || node.stderr().contains("the backend cannot be reached yet")).await;
        node.signal(Signal::HUP);
        node.signal(Signal::USR2);
        until("it stops", SOON, async || node.stderr().contains("stopped")).await;
        until("it starts again", SOON, is_starting).await;
        let pid_file = node.folder().join("pids/waits.pid");
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), node.pid().to_string());
        node.signal(signal);
        assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
        assert!(!pid_file.exists());
    }
}

#[tokio::test]
async fn hup_reopens_a_log_file_that_was_moved_away() {
    let mut node = Process::start("tour", &[("PHALANX_TITLE", "logger")]).await;
    let log = node.folder().join("log/logger-development.log");
    let moved = node.folder().join("log/old.log");
    fs::rename(&log, &moved).unwrap();
    node.signal(Signal::HUP);
    let reopened = async {
        while !log.exists() {
            get(node.addr, "/api/status").await;
        }
    };
    tokio::time::timeout(SOON, reopened).await.expect("the file is created again");
    assert!(node.folder().join("pids/logger.pid").exists());
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
    assert!(!node.folder().join("pids/logger.pid").exists());
}

#[tokio::test]
async fn the_command_line_prints_settings_and_actions() {
    let printed = run("tour", &["actions"], &[]).await;
    let table = String::from_utf8(printed.stdout).unwrap();
    assert!(table.contains("/rooms/{room}/say"), "{table}");
    assert!(table.contains("privateNote"), "{table}");
    let printed = run("tour", &["config"], &[("PHALANX__WEB__MAX_BODY", "3MiB")]).await;
    let settings = String::from_utf8(printed.stdout).unwrap();
    assert!(settings.contains("max_body = \"3"), "{settings}");
    assert!(!run("tour", &["actoins"], &[]).await.status.success());
}

#[tokio::test]
async fn an_invalid_setting_stops_the_boot_and_is_named() {
    for (name, value, expected) in [
        ("PHALANX__WEB__PROT", "80", "web.port"),
        ("PHALANX__WBE__PORT", "80", "web"),
        ("PHALANX__GENERAL__GRACE", "soon", "general.grace"),
        ("PHALANX__WEB__MAX_BODY", "1 parsec", "max_body"),
        ("PHALANX__ROOMS__START", "no spaces", "no spaces"),
        ("REDIS_URL", "http://localhost", "REDIS_URL"),
        ("REDIS_URL", "redis://:pass/word@localhost:6379", "percent-encode the password"),
        ("REDIS_URL", "rediss://localhost:6380/0#insecure", "the certificate of Redis is always verified"),
        ("BIND", "example.org", "web.bind: \"example.org\" is no address to listen on"),
        ("PHALANX__ADMIN__BIND", "9100", "admin.bind \"9100\" is no address with a port"),
        ("PHALANX__PATHS__LOG", "/proc/nowhere", "set paths.log to a folder that can be written, or log.file = false"),
        ("PHALANX__PATHS__PUBLIC", "/nowhere/at/all", "paths.public: /nowhere/at/all does not exist"),
        ("PHALANX__PATHS__UPLOADS", "/nowhere/at/all", "paths.uploads: /nowhere/at/all does not exist"),
        ("PHALANX_CONFIG", "/nowhere/at/all", "the config folder: /nowhere/at/all does not exist"),
    ] {
        let refused = run("tour", &["start"], &[(name, value)]).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{name}={value}: {text}");
        assert!(text.contains(expected), "{name}={value}: {text}");
        assert!(refused.stdout.is_empty(), "{name}={value}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run("tour", &[], &[("PORT", &port)]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("cannot listen"));
}

//! Limits on the resources of a node that a client may use, and for how long.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use phalanx_testkit::{Process, Signal, check_time, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};

use crate::app::{settings, start};
use crate::client::{Response, get, raw, request};
use crate::cluster::until;

const MULTIPART: &str = "content-type: multipart/form-data; boundary=b";

#[tokio::test]
async fn an_http_2_preface_is_not_answered_in_http_2() {
    let node = start(settings()).await;
    let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings_frame].concat();
    let answer = raw(node.addr(), &preface).await;
    assert!(answer.head.is_empty() || answer.head.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn a_request_keeps_its_permit_until_its_response_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("big.txt"), "x".repeat(30 << 20)).unwrap();
    let mut config = settings();
    config.paths.public = vec![folder.path().to_owned()];
    config.web.max_requests = 1;
    config.web.max_body = "31MiB".parse().unwrap();
    let node = start(config).await;
    let form = format!("list=a&text={}", "y".repeat(30 << 20));
    let echo = format!(
        "POST /api/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    );
    for bytes in ["GET /big.txt HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &echo] {
        let mut slow = TcpStream::connect(node.addr()).await.unwrap();
        slow.write_all(bytes.as_bytes()).await.unwrap();
        slow.read_exact(&mut [0; 1]).await.unwrap();
        let refused = get(node.addr(), "/api/echo").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        slow.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(get(node.addr(), "/api/echo").await.status, 200, "the response was sent");
    }
}

#[tokio::test]
async fn a_call_whose_client_disconnected_keeps_its_permit() {
    let node = Process::start("tour", &[("PHALANX__WEB__MAX_REQUESTS", "1"), ("RUST_LOG", "debug")]).await;
    let mut client = TcpStream::connect(node.addr).await.unwrap();
    client.write_all(b"GET /api/sleepTest?sleepDuration=20000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // A client that disconnects earlier leaves no call behind and is not counted.
    until("the call has started", Duration::from_secs(10), async || node.stderr().contains("an action starts")).await;
    drop(client);
    until_metric(&node, "phalanx_http_clients_left_total 1").await;
    assert_eq!(get(node.addr, "/api/status").await.status, 503);
    until_metric(&node, "phalanx_bound_reached_total{bound=\"web.max_requests\"} 1").await;
}

/// Waits until a node's metrics have this line.
async fn until_metric(node: &Process, line: &str) {
    let found = async {
        loop {
            let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
            if metrics.lines().any(|metric| metric == line) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), found).await.unwrap_or_else(|_| panic!("no {line}"));
}

#[tokio::test]
async fn the_log_names_the_route_and_not_its_parameters() {
    let mut node = Process::start("tour", &[]).await;
    let refused = request(node.addr, "POST /api/echo/hunter2", &["content-type: text/plain"], b"x").await;
    assert_eq!(refused.status, 415);
    node.signal(Signal::TERM);
    node.ended().await;
    let log = node.stderr();
    assert!(log.contains("/api/echo/{text}") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_connection_whose_head_is_late_is_closed_without_a_response() {
    let mut config = settings();
    config.web.header_timeout = Duration::from_millis(200);
    let node = start(config).await;
    for (before, answers) in [("", 0), ("HEAD /api/echo HTTP/1.1\r\nhost: x\r\n\r\n", 1)] {
        let started = Instant::now();
        let answer = raw(node.addr(), format!("{before}GET / HTTP/1.1\r\nhost:").as_bytes()).await;
        check_time("a header timeout of 200 ms: closed", started.elapsed(), Duration::from_millis(200));
        assert_eq!(answer.head.matches("HTTP/1.1 200").count(), answers, "{answer:?}");
        assert!(answer.body.is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_head_of_many_headers_is_refused() {
    let mut config = settings();
    config.web.max_headers = 5;
    let node = start(config).await;
    assert_eq!(request(node.addr(), "GET /api/echo", &["a: 1", "b: 2", "c: 3"], b"").await.status, 200);
    assert_eq!(request(node.addr(), "GET /api/echo", &["a: 1", "b: 2", "c: 3", "d: 4"], b"").await.status, 431);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let mut config = settings();
    config.web.max_connections = 1;
    let node = start(config).await;
    let mut first = TcpStream::connect(node.addr()).await.unwrap();
    let head = b"HEAD /api/echo HTTP/1.1\r\nhost: x\r\n\r\n";
    first.write_all(head).await.unwrap();
    first.read_exact(&mut [0; 12]).await.unwrap();
    let mut second = TcpStream::connect(node.addr()).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0);
    first
        .write_all(&[head.as_slice(), b"GET /api/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat())
        .await
        .unwrap();
    let mut rest = String::new();
    first.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 2, "{rest}");
}

#[tokio::test]
async fn operators_have_64_connections() {
    let node = start(settings()).await;
    let admin = node.admin_addr().unwrap();
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(admin).await.unwrap());
    }
    let mut last = TcpStream::connect(admin).await.unwrap();
    let closed = timeout(Duration::from_secs(3), last.read(&mut [0; 1])).await;
    assert_eq!(closed.expect("before the idle ones are closed").unwrap(), 0);
}

#[tokio::test]
async fn a_client_refused_early_gets_the_response_and_not_a_reset() {
    let mut config = settings();
    config.web.max_body = "1KiB".parse().unwrap();
    let node = start(config).await;
    let (addr, large) = (node.addr(), vec![b'x'; 8 << 20]);
    let json = "content-type: application/json";
    assert_eq!(request(addr, "POST /api/echo", &["content-type: text/plain"], &large).await.status, 415);
    assert_eq!(request(addr, "POST /api/echo", &[json], &large).await.status, 413);
    assert_eq!(request(addr, "PUT /api/echo", &[json], &large).await.status, 405);
    let head = format!("POST /api/echo HTTP/1.1\r\nhost: x\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\n800000\r\n");
    assert_eq!(raw(addr, &[head.as_bytes(), &large].concat()).await.status, 413);
    let head = [b"GET / HTTP/1.1\r\nhost: x\r\nx: ".as_slice(), &large].concat();
    assert_eq!(raw(addr, &head).await.status, 431);
}

/// A multipart body with one file.
fn file_of(size: usize) -> Vec<u8> {
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";
    [head.as_bytes(), &vec![b'y'; size], b"\r\n--b--\r\n"].concat()
}

async fn send_file(addr: SocketAddr, path: &str, size: usize) -> Response {
    request(addr, &format!("POST {path}"), &[MULTIPART], &file_of(size)).await
}

/// Waits until a folder has `count` files.
async fn until_files(folder: &Path, count: usize) {
    let found = async {
        while std::fs::read_dir(folder).unwrap().count() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), found).await.unwrap_or_else(|_| panic!("not {count} files"));
}

#[tokio::test]
async fn files_of_a_request_are_removed_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings();
    config.paths.uploads = folder.path().to_owned();
    config.web.body_timeout = Duration::from_millis(500);
    let node = start(config).await;
    let addr = node.addr();
    assert_eq!(send_file(addr, "/api/upload", 20_000).await.status, 200);
    until_files(folder.path(), 0).await;
    let started = start_of_file(1000);
    let late = raw(addr, &started).await;
    assert_eq!((late.status, late.error_code().as_str()), (408, "request_timeout"));
    until_files(folder.path(), 0).await;
    let mut leaving = TcpStream::connect(addr).await.unwrap();
    leaving.write_all(&started).await.unwrap();
    until_files(folder.path(), 1).await;
    drop(leaving);
    until_files(folder.path(), 0).await;
}

/// The only thread that may wait for a disk waits for another one.
#[test]
fn a_disk_that_hangs_ends_the_upload_and_keeps_nothing_of_it() {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut config = settings();
        config.paths.uploads = folder.path().to_owned();
        config.web.body_timeout = Duration::from_millis(200);
        config.web.max_requests = 1;
        config.web.max_waiting_bodies = 1;
        let node = start(config).await;
        let (answers, hangs) = std::sync::mpsc::channel::<()>();
        let disk = tokio::task::spawn_blocking(move || hangs.recv());
        for _ in 0..2 {
            let started = Instant::now();
            let failed = send_file(node.addr(), "/api/upload", 1000).await;
            assert_eq!((failed.status, failed.error_code().as_str()), (500, "internal"));
            check_time(
                "a disk that hangs, and a body timeout of 200 ms",
                started.elapsed(),
                Duration::from_millis(200),
            );
        }
        answers.send(()).unwrap();
        disk.await.unwrap().unwrap();
        assert_eq!(send_file(node.addr(), "/api/upload", 1000).await.status, 200);
        until_files(folder.path(), 0).await;
    });
}

/// The calls of `write` by the only thread that may block; to wake the runtime afterwards is one as well.
async fn writes() -> u64 {
    let counts =
        tokio::task::spawn_blocking(|| std::fs::read_to_string("/proc/thread-self/io")).await.unwrap().unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap();
    count.parse().unwrap()
}

#[test]
fn a_large_file_is_written_in_large_pieces() {
    const MIB: usize = 1 << 20;
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let node = start(settings()).await;
        let before = writes().await;
        assert_eq!(send_file(node.addr(), "/api/upload", 4 * MIB).await.status, 200);
        let count = writes().await - before;
        print(format_args!("a file of 4 MiB in {count} writes, half of which wake the runtime"));
        assert!(count / 2 < 4 * MIB as u64 / (32 * 1024), "{count} writes");
    });
}

/// The start of a request whose file continues after `size` bytes.
fn start_of_file(size: usize) -> Vec<u8> {
    let head = format!("POST /api/upload HTTP/1.1\r\nhost: x\r\n{MULTIPART}\r\ntransfer-encoding: chunked\r\n\r\n");
    let piece: Vec<u8> = file_of(100).iter().copied().take(100).chain(vec![b'z'; size]).collect();
    [head.as_bytes(), format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat()
}

#[tokio::test]
async fn a_file_is_refused_when_pending_uploads_leave_no_room_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let stored = || std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    let mut config = settings();
    config.paths.uploads = folder.path().to_owned();
    config.web.max_upload = "64KiB".parse().unwrap();
    config.web.max_uploads_total = "64KiB".parse().unwrap();
    let node = start(config).await;
    for round in 0..2 {
        let mut pending = TcpStream::connect(node.addr()).await.unwrap();
        pending.write_all(&start_of_file(40_000)).await.unwrap();
        until("the first file is pending", Duration::from_secs(10), async || stored().sum::<u64>() > 30_000).await;
        let full = send_file(node.addr(), "/api/upload", 40_000).await;
        assert_eq!((full.status, full.error_code().as_str()), (503, "unavailable"), "{round}");
        until_files(folder.path(), 1).await;
        drop(pending);
        until_files(folder.path(), 0).await;
    }
}

#[tokio::test]
async fn files_that_no_input_declares_are_not_stored() {
    let mut config = settings();
    config.paths.uploads = "/nowhere/at/all".into();
    config.web.max_body = "32KiB".parse().unwrap();
    let node = start(config).await;
    assert_eq!(send_file(node.addr(), "/api/upload", 1000).await.status, 500, "there is no such folder");
    assert_eq!(send_file(node.addr(), "/api/echo", 1000).await.status, 200);
    assert_eq!(
        send_file(node.addr(), "/api/echo", 40_000).await.status,
        413,
        "its bytes count as those of any other body"
    );
}

#[tokio::test]
async fn field_names_count_towards_the_limit_of_the_body() {
    let mut config = settings();
    config.web.max_body = "4KiB".parse().unwrap();
    let node = start(config).await;
    let field =
        |name: usize| format!("--b\r\ncontent-disposition: form-data; name=\"{}\"\r\n\r\n\r\n", "n".repeat(name));
    for (name, status) in [(10, 422), (200, 413)] {
        let body = field(name).repeat(40) + "--b--\r\n";
        assert_eq!(request(node.addr(), "POST /api/upload", &[MULTIPART], body.as_bytes()).await.status, status);
    }
}

#[tokio::test]
async fn the_number_of_files_of_a_request_is_bounded() {
    let mut config = settings();
    config.web.max_files = 2;
    let node = start(config).await;
    let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n";
    for (files, status) in [(1, 200), (3, 413)] {
        let body = file.repeat(files) + "--b--\r\n";
        assert_eq!(request(node.addr(), "POST /api/upload", &[MULTIPART], body.as_bytes()).await.status, status);
    }
}

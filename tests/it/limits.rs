//! What a client may hold of a node, and for how long.

use phalanx_testkit::{Process, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{settings, start};
use crate::client::{get, raw, request};

#[tokio::test]
async fn who_speaks_http_2_is_not_answered_in_it() {
    let node = start(settings()).await;
    let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings_frame].concat();
    let answer = raw(node.addr(), &preface).await;
    assert!(answer.head.is_empty() || answer.head.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn a_request_keeps_its_place_until_its_answer_has_gone_out() {
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
    for asked in ["GET /big.txt HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &echo] {
        let mut slow = TcpStream::connect(node.addr()).await.unwrap();
        slow.write_all(asked.as_bytes()).await.unwrap();
        slow.read_exact(&mut [0; 1]).await.unwrap();
        let refused = get(node.addr(), "/api/echo").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        slow.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(get(node.addr(), "/api/echo").await.status, 200, "it has gone out");
    }
}

#[tokio::test]
async fn a_call_whose_client_left_keeps_its_place() {
    let node = Process::start("tour", &[("PHALANX__WEB__MAX_REQUESTS", "1")]).await;
    let mut client = TcpStream::connect(node.addr).await.unwrap();
    client.write_all(b"GET /api/sleepTest?sleepDuration=20000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    drop(client);
    until_metric(&node, "phalanx_http_clients_left_total 1").await;
    assert_eq!(get(node.addr, "/api/status").await.status, 503);
    until_metric(&node, "phalanx_bound_reached_total{bound=\"web.max_requests\"} 1").await;
}

/// Waits until a node says this among its metrics.
async fn until_metric(node: &Process, line: &str) {
    let said = async {
        loop {
            let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
            if metrics.lines().any(|metric| metric == line) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), said).await.unwrap_or_else(|_| panic!("no {line}"));
}

#[tokio::test]
async fn the_log_names_the_route_and_not_what_stands_in_its_place() {
    let mut node = Process::start("tour", &[]).await;
    let refused = request(node.addr, "POST /api/echo/hunter2", &["content-type: text/plain"], b"x").await;
    assert_eq!(refused.status, 415);
    node.signal(Signal::TERM);
    node.ended().await;
    let log = node.stderr();
    assert!(log.contains("/api/echo/{text}") && !log.contains("hunter2"), "{log}");
}

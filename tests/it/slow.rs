//! A client that never reads pays for it alone.

use std::time::Duration;

use phalanx_testkit::{Process, tell};
use serde_json::json;

use crate::client::{Socket, get};

/// 100 MB go through the room.
const MESSAGES: u64 = 1700;
const SIZE: usize = 60_000;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn while_a_member_never_reads_the_others_hear_100_mb_and_the_memory_stays() {
    let node = Process::start("tour", &[("PHALANX_ENV", "production")]).await;
    let mut speaker = Socket::join(node.addr, "defaultRoom").await;
    let mut listener = Socket::join(node.addr, "defaultRoom").await;
    for number in 0..50 {
        speak(&mut speaker, &mut listener, number).await; // fills every buffer that a healthy socket has
    }
    let before = node.resident().unwrap();
    let deaf = Socket::join(node.addr, "defaultRoom").await;
    let mut late = Socket::join(node.addr, "defaultRoom").await;
    let mut most = 0;
    let mut late_code = None;
    for number in 0..MESSAGES {
        speak(&mut speaker, &mut listener, number).await;
        if number % 20 == 0 {
            most = most.max(node.resident().unwrap());
        }
        if late_code.is_none() && sockets(&node).await == 2 {
            // It begins to read within `close_timeout` of being given up, so it learns why.
            late_code = Some(late.closed().await);
        }
    }
    assert_eq!(late_code, Some(4001));
    let grown = most.saturating_sub(before);
    tell(format_args!("resident memory grew by {} KiB while 100 MB went by", grown / 1024));
    assert!(grown < 4 * MIB, "resident memory grew by {grown} bytes");
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_connections_closed_total{reason=\"slow_reader\"} 2"), "{metrics}");
    drop(deaf);
}

/// Says a numbered message and hears it on both ends.
async fn speak(speaker: &mut Socket, listener: &mut Socket, number: u64) {
    let filler = "x".repeat(SIZE);
    speaker.send(&format!(r#"{{"event":"say","room":"defaultRoom","message":[{number},"{filler}"]}}"#)).await;
    for socket in [speaker, listener] {
        let said = socket.next_in("user").await;
        assert_eq!(said["message"][0], json!(number));
        assert_eq!(said["message"][1].as_str().map(str::len), Some(SIZE));
    }
}

/// How many sockets the node has.
async fn sockets(node: &Process) -> u64 {
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("phalanx_connections "));
    line.and_then(|count| count.parse::<f64>().ok()).map_or(0, |count| count as u64)
}

#[tokio::test]
async fn a_client_that_quits_and_never_reads_is_reset_in_time() {
    let node = Process::start("tour", &[("PHALANX__WEBSOCKET__CLOSE_TIMEOUT", "200ms")]).await;
    let mut deaf = Socket::connect(node.addr).await;
    let text = "y".repeat(30_000);
    for number in 0..16 {
        deaf.send(&format!(
            r#"{{"event":"action","messageId":{number},"params":{{"action":"echo","text":"{text}"}}}}"#
        ))
        .await;
    }
    deaf.send(r#"{"event":"quit"}"#).await;
    let gone = async {
        while sockets(&node).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the socket is given up");
}

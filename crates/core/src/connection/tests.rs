use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::noop_waker;
use serde_json::json;

use super::send_slots::LONGEST_WAIT;
use super::*;
use crate::id::ConnectionId;

fn connection(frames: usize, bytes: usize) -> Connection {
    Connection::new(NewConnection {
        id: ConnectionId::parse("g-1").unwrap(),
        fingerprint: "f".into(),
        remote: ([127, 0, 0, 1], 1).into(),
        attributes: Attributes::limited(20),
        connected_at: 0,
        outbox: OutboxLimit { frames, bytes },
    })
}

fn text(text: &'static str) -> Frame {
    Frame::Text(Bytes::from_static(text.as_bytes()))
}

/// The items that the connection's task would take, until there is none or a close.
fn drained(connection: &Connection) -> Vec<String> {
    let mut done = Vec::new();
    loop {
        match connection.next() {
            OutboxItem::Frame(Frame::Text(bytes) | Frame::Binary(bytes)) => {
                done.push(String::from_utf8_lossy(&bytes).into())
            }
            OutboxItem::Ping => done.push("ping".into()),
            OutboxItem::Close(reason) => {
                done.push(format!("close {}", reason.code()));
                return done;
            }
            OutboxItem::Nothing => return done,
        }
    }
}

#[test]
fn frames_go_out_in_order_then_pings_then_the_end() {
    let connection = connection(10, 100);
    connection.ping();
    assert!(connection.push(text("a")) && connection.push(text("b")));
    assert_eq!(drained(&connection), ["a", "b", "ping"]);
    connection.push(text("c"));
    connection.close(CloseReason::Destroyed);
    connection.close(CloseReason::SlowReader);
    assert!(!connection.push(text("too late")));
    assert_eq!(drained(&connection), ["c", "close 4500"]);
}

#[test]
fn an_outbox_over_either_limit_closes_its_client_as_slow_and_frees_its_frames() {
    for (frames, bytes) in [(2, 100), (10, 4)] {
        let connection = connection(frames, bytes);
        assert!(connection.push(text("aa")) && connection.push(text("bb")));
        assert!(!connection.push(text("c")));
        assert_eq!(drained(&connection), ["close 4001"]);
    }
    let connection = connection(2, 4);
    for _ in 0..10 {
        assert!(connection.push(text("aaaa")));
        assert_eq!(drained(&connection), ["aaaa"]);
    }
}

#[test]
fn a_node_that_stops_still_answers_what_it_accepted() {
    let connection = connection(10, 100);
    let permit = connection.try_acquire_action(1).unwrap();
    assert!(connection.try_acquire_action(1).is_none());
    connection.close(CloseReason::NodeStops);
    assert!(connection.is_closing() && !connection.is_cut_off());
    permit.answer(text("answer"));
    assert_eq!((connection.pending_actions(), connection.total_actions()), (0, 2));
    assert_eq!(drained(&connection), ["answer", "close 1001"]);
}

#[test]
fn a_permit_is_free_again_however_its_action_ends() {
    let connection = connection(10, 100);
    drop(connection.try_acquire_action(1).unwrap());
    let permit = connection.try_acquire_action(1).unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _permit = permit;
        panic!("on purpose");
    }));
    assert!(ended.is_err());
    assert_eq!(connection.pending_actions(), 0);
}

#[tokio::test(start_paused = true)]
async fn closed_completes_only_when_the_client_leaves_while_a_node_stops() {
    let connection = connection(10, 100);
    let closed = connection.closed();
    tokio::pin!(closed);
    assert!((&mut closed).now_or_never().is_none());
    connection.close(CloseReason::NodeStops);
    assert!((&mut closed).now_or_never().is_none());
    assert!(connection.closed().now_or_never().is_none());
    connection.close(CloseReason::ClientLeft);
    closed.await;
    assert_eq!(connection.closing(), Some(CloseReason::ClientLeft));
}

#[test]
fn codes_from_4500_on_mean_do_not_reconnect() {
    for (reason, code) in [
        (CloseReason::ClientLeft, 1000),
        (CloseReason::NodeStops, 1001),
        (CloseReason::Protocol, 1002),
        (CloseReason::Binary, 1003),
        (CloseReason::InvalidText, 1007),
        (CloseReason::Policy, 1008),
        (CloseReason::TooBig, 1009),
        (CloseReason::SlowReader, 4001),
        (CloseReason::HeartbeatLost, 4002),
        (CloseReason::RateLimited, 4003),
        (CloseReason::Destroyed, 4500),
        (CloseReason::NotAllowed, 4501),
    ] {
        assert_eq!(reason.code(), code, "{}", reason.as_str());
    }
    for code in 4500..=4999 {
        assert_eq!(CloseReason::of_application(code).map(CloseReason::code), Some(code));
    }
    for code in [0, 1000, 4001, 4499, 5000] {
        assert_eq!(CloseReason::of_application(code), None, "{code}");
    }
}

#[test]
fn attributes_are_bounded_together_and_null_removes() {
    let connection = connection(1, 1);
    assert_eq!(connection.set("a", json!("12345")).unwrap(), None);
    assert_eq!(connection.set("b", json!("12345")).unwrap(), None);
    assert_eq!(connection.set("c", json!("12345")).unwrap_err().code(), "payload_too_large");
    assert_eq!(connection.set("a", json!("123456789012345")).unwrap_err().code(), "payload_too_large");
    assert_eq!(connection.set("a", json!(1)).unwrap(), Some(json!("12345")));
    assert_eq!(connection.set("b", Value::Null).unwrap(), Some(json!("12345")));
    assert_eq!((connection.get("a"), connection.get("b")), (Some(json!(1)), None));
    assert_eq!(connection.set("c", json!("12345")).unwrap(), None);
}

#[test]
fn ids_of_an_application_are_printable_and_bounded() {
    for (text, is_id) in [("user-1", true), ("", false), ("a b", false), ("é", false), ("a\n", false)] {
        assert_eq!(ConnectionId::parse(text).is_ok(), is_id, "{text:?}");
    }
    for (text, is_reserved) in
        [("0", true), ("abcdefghij-abcdefghijklmnopqrstuv", true), ("user-1", false), ("00", false)]
    {
        assert_eq!(ConnectionId::parse(text).unwrap().is_reserved(), is_reserved, "{text}");
    }
    assert!(ConnectionId::parse(&"x".repeat(128)).is_ok() && ConnectionId::parse(&"x".repeat(129)).is_err());
}

#[test]
fn a_silent_client_is_alive_once() {
    let connection = connection(1, 1);
    assert!(connection.take_alive(), "a new client has just connected");
    assert!(!connection.take_alive());
    connection.mark_alive();
    assert!(connection.take_alive());
}

#[test]
fn silence_before_the_first_ping_does_not_count() {
    let connection = connection(1, 1);
    assert!(connection.take_alive());
    connection.queue(text("a"));
    connection.ping();
    assert!(connection.take_alive(), "the ping waits behind a frame");
    assert_eq!(drained(&connection), ["a", "ping"]);
    assert!(!connection.take_alive(), "it was pinged, and is silent");
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_too_many_of_its_messages_are_in_flight() {
    let connection = connection(1, 1);
    connection.acquire_send_slot(2).await.published();
    drop(connection.acquire_send_slot(2).await); // one that was never published does not count
    connection.acquire_send_slot(2).await.published();
    let third = connection.acquire_send_slot(2);
    tokio::pin!(third);
    assert!(tokio::time::timeout(LONGEST_WAIT - Duration::from_millis(1), &mut third).await.is_err());
    connection.on_delivered();
    third.await.published();
    let fourth = connection.acquire_send_slot(2);
    tokio::pin!(fourth);
    assert!((&mut fourth).now_or_never().is_none());
    connection.close(CloseReason::ClientLeft);
    drop(fourth.await); // a client that left delays no one
}

#[tokio::test(start_paused = true)]
async fn a_sender_whose_messages_never_arrive_continues_after_the_longest_wait() {
    let connection = connection(1, 1);
    for _ in 0..3 {
        connection.acquire_send_slot(2).await.published();
    }
    connection.acquire_send_slot(2).now_or_never().expect("lost messages no longer count").published();
}

#[tokio::test(start_paused = true)]
async fn closed_completes_before_and_after_the_close() {
    let connection = connection(1, 1);
    let closed = connection.closed();
    tokio::pin!(closed);
    assert!((&mut closed).now_or_never().is_none());
    connection.close(CloseReason::Destroyed);
    closed.await;
    connection.closed().await;
}

#[test]
fn every_push_wakes_the_task() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let (connection, count) = (connection(10, 100), Arc::new(Count(0.into())));
    let wakers: [fn(&Connection); 3] = [
        |connection| assert!(connection.push(text("a"))),
        |connection| connection.ping(),
        |connection| connection.close(CloseReason::NodeStops),
    ];
    for (n, wake) in wakers.iter().enumerate() {
        connection.register(&count.clone().into());
        wake(&connection);
        assert_eq!(count.0.load(Relaxed), n + 1);
    }
    connection.register(&noop_waker());
}

#[test]
fn a_frame_is_queued_until_it_is_taken_and_a_copy_of_it_is_not() {
    let connection = connection(10, 100);
    let frame = Bytes::from(b"gap".to_vec());
    assert!(!connection.has_queued(&frame));
    connection.push(Frame::Text(frame.clone()));
    connection.push(Frame::Text("other".into()));
    assert!(connection.has_queued(&frame) && !connection.has_queued(&Bytes::copy_from_slice(&frame)));
    connection.next();
    assert!(!connection.has_queued(&frame));
}

//! Clients that do not read, or read late: no other client and no other connection pays for them.

use std::future::poll_fn;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use phalanx::config::ByteSize;
use phalanx_testkit::{Process, check_time, print};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;

use crate::app::{settings, start};
use crate::client::{RawSocket, Socket, get};
use crate::cluster::until;

/// 100 MB go through the room.
const MESSAGES: u64 = 1700;
const SIZE: usize = 60_000;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn while_a_member_never_reads_the_others_receive_100_mb_and_memory_is_bounded() {
    let node = Process::start("tour", &[("PHALANX_ENV", "production")]).await;
    let mut publisher = Socket::join(node.addr, "defaultRoom").await;
    let mut listener = Socket::join(node.addr, "defaultRoom").await;
    for number in 0..50 {
        publish(&mut publisher, &mut listener, number).await; // fills every buffer that a healthy socket has
    }
    let before = node.resident().unwrap();
    let stalled = Socket::join(node.addr, "defaultRoom").await;
    let mut late = Socket::join(node.addr, "defaultRoom").await;
    let mut most = 0;
    let mut late_code = None;
    for number in 0..MESSAGES {
        publish(&mut publisher, &mut listener, number).await;
        if number % 20 == 0 {
            most = most.max(node.resident().unwrap());
        }
        if late_code.is_none() && sockets(&node).await == 2 {
            // It starts to read within `close_timeout` of being cut off, so it receives the close code.
            late_code = Some(late.closed().await);
        }
    }
    assert_eq!(late_code, Some(4001));
    let grown = most.saturating_sub(before);
    print(format_args!("resident memory grew by {} KiB while 100 MB went by", grown / 1024));
    assert!(grown < 4 * MIB, "resident memory grew by {grown} bytes");
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_connections_closed_total{reason=\"slow_reader\"} 2"), "{metrics}");
    drop(stalled);
}

/// A frame that the network accepts in pieces is written in pieces, and pongs go between two frames, never into one.
#[tokio::test]
async fn a_member_that_reads_late_receives_every_frame_whole_and_its_pings_are_answered() {
    const SIZES: [usize; 3] = [10, 3_000, 60_000];
    let mut config = settings();
    config.rooms.start = ["lobby"].map(Into::into).into();
    config.websocket.messages_per_second = 0;
    config.websocket.heartbeat = Duration::from_secs(300); // its pings would flush bytes that were left behind
    (config.websocket.outbox_frames, config.websocket.outbox_bytes) = (1_000, ByteSize::mib(32));
    let node = start(config).await;
    let mut late = Socket::join(node.addr(), "lobby").await;
    let mut silent = Socket::join(node.addr(), "lobby").await;
    // Far more than the kernel buffers for a client that does not read.
    for number in 0..900 {
        let text = "x".repeat(SIZES[number % 3]);
        node.node().rooms().say("lobby", &json!([number, text])).await.unwrap();
    }
    // More than the server keeps pongs for: the last one counts. It has the largest payload of a ping, so that its pong
    // fits into no space left over by chance.
    let last = "z".repeat(125);
    for _ in 0..64 {
        silent.send_frame(Frame::ping("x".repeat(125))).await;
    }
    silent.send_frame(Frame::ping(last.clone())).await;
    for number in 0..900 {
        late.send_frame(Frame::ping("now")).await;
        for socket in [&mut late, &mut silent] {
            let message = socket.next_in("user").await;
            assert_eq!(message["message"][0], json!(number));
            assert_eq!(message["message"][1].as_str().map(str::len), Some(SIZES[number % 3]));
        }
    }
    silent.pong(&last).await;
    late.send_frame(Frame::ping("then")).await;
    late.pong("then").await;
    late.close().await;
    node.stop().await;
}

/// Publishes a numbered message and receives it on both sockets.
async fn publish(publisher: &mut Socket, listener: &mut Socket, number: u64) {
    let filler = "x".repeat(SIZE);
    publisher.send(&format!(r#"{{"event":"say","room":"defaultRoom","message":[{number},"{filler}"]}}"#)).await;
    for socket in [publisher, listener] {
        let message = socket.next_in("user").await;
        assert_eq!(message["message"][0], json!(number));
        assert_eq!(message["message"][1].as_str().map(str::len), Some(SIZE));
    }
}

/// The number of sockets of the node, from its metrics.
async fn sockets(node: &Process) -> u64 {
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("phalanx_connections "));
    line.and_then(|count| count.parse::<f64>().ok()).map_or(0, |count| count as u64)
}

#[tokio::test]
async fn a_client_that_quits_and_never_reads_is_reset_in_time() {
    let node = Process::start("tour", &[("PHALANX__WEBSOCKET__CLOSE_TIMEOUT", "200ms")]).await;
    let mut stalled = Socket::connect(node.addr).await;
    let text = "y".repeat(30_000);
    for number in 0..16 {
        stalled
            .send(&format!(r#"{{"event":"action","messageId":{number},"params":{{"action":"echo","text":"{text}"}}}}"#))
            .await;
    }
    stalled.send(r#"{"event":"quit"}"#).await;
    let took = until("the socket is reset", Duration::from_secs(20), async || sockets(&node).await == 0).await;
    check_time("a close timeout of 200 ms: reset", took, Duration::from_millis(200));
}

/// A buffer that has grown keeps its size until its socket is closed.
#[tokio::test]
async fn large_answers_cost_a_socket_no_more_memory_than_small_ones() {
    const SOCKETS: u64 = 50;
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("large.txt"), "x".repeat(500_000)).unwrap();
    let folder = public.path().to_str().unwrap();
    let environment = [("PHALANX__PATHS__PUBLIC", folder), ("PHALANX__WEBSOCKET__HEARTBEAT", "10m")];
    let node = Process::start("tour", &environment).await;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(Socket::connect(node.addr).await);
    }
    let before = node.resident().unwrap();
    for socket in &mut sockets {
        let file = socket.request(r#"{"event":"file","file":"large.txt"}"#).await;
        assert_eq!(file["content"].as_str().map(str::len), Some(500_000));
    }
    let each = node.resident().unwrap().saturating_sub(before) / SOCKETS;
    eprintln!("an answer of 500 kB leaves {each} bytes behind in each of {SOCKETS} sockets");
    assert!(each < 250_000, "{each} bytes are retained by each socket");
}

/// Bytes still arriving when the server closes would reset the connection before the close frame is read.
#[tokio::test]
async fn a_client_that_keeps_sending_receives_its_close_reason() {
    let node = Process::start("tour", &[]).await;
    let too_big = [vec![0x81, 0xff], 70_000_u64.to_be_bytes().to_vec(), vec![0; 4]].concat();
    let binary = vec![0x82, 0x80, 0, 0, 0, 0];
    for (first, reason) in [(too_big, "too_big"), (binary, "binary")] {
        let mut stream = upgraded(node.addr).await;
        stream.write_all(&first).await.unwrap();
        stream.write_all(&vec![0; 4 << 20]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert!(received.ends_with(reason.as_bytes()), "{reason}: {}", String::from_utf8_lossy(&received));
    }
}

/// A member that reads fast has the thread for no longer than others. Its client runs in the node's thread, and takes its
/// turn after all other tasks that can run; so what it reads in one turn was written in one.
#[tokio::test]
async fn a_large_message_is_written_in_turns_with_other_tasks() {
    const SIZE: usize = 500_000;
    let public = tempfile::tempdir().unwrap();
    std::fs::write(public.path().join("large.txt"), "x".repeat(SIZE)).unwrap();
    let mut config = settings();
    config.paths.public = vec![public.path().to_owned()];
    let node = start(config).await;
    let addr = node.addr();
    let client = tokio::spawn(async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(MIB as u32).unwrap(); // so that the node can write much at once
        let mut stream = upgrade(socket.connect(addr).await.unwrap()).await;
        let frame = RawSocket::masked(0x81, br#"{"event":"file","file":"large.txt"}"#);
        stream.write_all(&frame).await.unwrap();
        let (mut stream, mut turns) = (stream.into_std().unwrap(), Vec::new());
        while turns.iter().sum::<usize>() < SIZE {
            turns.push(read_in_turn(&mut stream).await);
        }
        turns.into_iter().max()
    });
    let most = timeout(Duration::from_secs(20), client).await.unwrap().unwrap().unwrap();
    print(format_args!("a message of {SIZE} bytes: {most} bytes in a turn at most"));
    assert!(most > 64 << 10, "the network took no more than {most} bytes at once, which shows nothing");
    // 64 KiB, and the part of 16 KiB with which the message began.
    assert!(most <= 81 << 10, "{most} bytes at once");
    node.stop().await;
}

/// Reads everything that came until the turn of the calling task, and returns how much that was.
async fn read_in_turn(stream: &mut std::net::TcpStream) -> usize {
    let mut is_next = false;
    poll_fn(|task| {
        task.waker().wake_by_ref();
        if std::mem::replace(&mut is_next, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => bytes.len(),
        ended => panic!("{ended:?}"),
    }
}

/// An upgraded connection, for raw frames.
async fn upgraded(addr: SocketAddr) -> TcpStream {
    upgrade(TcpStream::connect(addr).await.unwrap()).await
}

async fn upgrade(mut stream: TcpStream) -> TcpStream {
    let head = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !received.windows(7).any(|bytes| bytes == b"welcome") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
    stream
}

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::quota::Quota;

#[tokio::test]
async fn a_connection_is_not_idle_while_its_client_does_not_read() {
    let quota = || Quota::new("test", 1);
    let time = Duration::from_secs(20);
    let limits = LingerLimits { idle: time, time, bytes: 0, waiting_bodies: quota() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut stream, peer) = Admission::new(quota(), time, limits).admit(accepted.unwrap().0).unwrap();
    let piece = vec![0; 1 << 20];
    let mut written = 0;
    poll_fn(|cx| {
        while let Poll::Ready(bytes) = Pin::new(&mut stream).poll_write(cx, &piece) {
            written += bytes.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    let events = peer.activity.events();
    assert!(!peer.activity.is_idle(), "after {written} bytes");
    let mut client = client.unwrap();
    let mut input = vec![0; written];
    let writing = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &piece));
    let (read, more) = tokio::join!(client.read_exact(&mut input), writing);
    assert!(read.unwrap() == written && more.unwrap() > 0);
    assert!(peer.activity.is_idle() && peer.activity.events() != events);
}

#[tokio::test]
async fn a_connection_that_discards_megabytes_lets_the_others_have_their_turn() {
    let quota = || Quota::new("test", 1);
    let time = Duration::from_secs(20);
    let limits = LingerLimits { idle: time, time, bytes: u64::MAX, waiting_bodies: quota() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut stream, _) = Admission::new(quota(), time, limits).admit(accepted.unwrap().0).unwrap();
    let (mut client, piece) = (client.unwrap(), vec![0; 1 << 20]);
    client.writable().await.unwrap();
    let mut sent = 0;
    while let Ok(bytes) = client.try_write(&piece) {
        sent += bytes as u64;
    }
    let mut discarded = vec![0];
    let closing = poll_fn(|cx| {
        let closed = Pin::new(&mut stream).poll_shutdown(cx);
        discarded.push(stream.lingering.as_ref().unwrap().read);
        closed
    });
    let (closed, written) = tokio::join!(closing, async {
        client.flush().await?;
        client.shutdown().await
    });
    closed.unwrap();
    written.unwrap();
    assert_eq!(discarded.last(), Some(&sent));
    let most = discarded.windows(2).map(|polls| polls[1] - polls[0]).max();
    assert!(most <= Some(DISCARD_AT_MOST + 16 * 1024), "{most:?} bytes of {sent} at once");
}

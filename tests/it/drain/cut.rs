//! What still runs when the grace is over is cut off, and the stop says so.

use std::time::Duration;

use phalanx::prelude::*;
use phalanx_testkit::check_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::settings;
use crate::panics::{SOON, start};

/// Streams to the end, which never comes.
#[action(get, finish_stream)]
async fn endless_download(_ctx: Context) -> Result<Body, ActionError> {
    Ok(Body::stream("text/plain", super::lines()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_ends_with_its_connection_counts_as_cut_off() {
    let (node, stage) = start(|config| config.general.grace = Duration::from_millis(200)).await;
    let mut client = TcpStream::connect(node.addr()).await.unwrap();
    client.write_all(b"GET /api/wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stage.until("waiting").await;
    assert_eq!(timeout(SOON, node.stop()).await.unwrap().abandoned, 1);
    assert_eq!(timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_is_not_sent_by_then_counts_and_an_idle_connection_does_not() {
    let mut config = settings();
    config.general.grace = Duration::from_millis(200);
    let node = App::new("cut").actions(actions![endless_download]).start(config).await.unwrap();
    let _idle = TcpStream::connect(node.addr()).await.unwrap();
    let mut client = TcpStream::connect(node.addr()).await.unwrap();
    client.write_all(b"GET /api/endless_download HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    client.read_exact(&mut [0; 15]).await.unwrap();
    let begin = Instant::now();
    assert_eq!(timeout(SOON, node.stop()).await.unwrap().abandoned, 1);
    check_time("a grace of 200 ms", begin.elapsed(), Duration::from_millis(200));
}

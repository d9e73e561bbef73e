//! Open streams of each worker over a roll: `ROUNDS` rolls (1).

use std::time::Duration;

use phalanx_testkit::{Signal, check_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SECOND, Workers};
use crate::cluster::tasks::harness::setting;
use crate::cluster::until;
use crate::panics::SOON;

const DRAIN: Duration = Duration::from_secs(2);

/// Opens a stream without an end; the task reads it up to its last chunk, and closes the connection. Without that the
/// worker would wait for a next request, as long as `web.drain`.
async fn open(workers: &Workers) -> JoinHandle<()> {
    let mut stream = TcpStream::connect(workers.parent.addr).await.unwrap();
    stream.write_all(b"GET /api/bodyTest/endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut input = vec![0; 15];
    stream.read_exact(&mut input).await.unwrap();
    assert_eq!(input, b"HTTP/1.1 200 OK");
    tokio::spawn(async move {
        while !input.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0, "no last chunk");
        }
    })
}

/// Waits until the parent knows so many connections; returns whether each worker has one.
pub(super) async fn has_each_one(workers: &Workers, connections: usize) -> bool {
    let mut each = Vec::new();
    until("the parent knows the connections", SOON, async || {
        let status = workers.status().await;
        let all = status["workers"].as_array().unwrap().iter();
        each = all.map(|worker| worker["connections"].as_u64().unwrap() as usize).collect();
        each.iter().sum::<usize>() == connections
    })
    .await;
    each.iter().all(|connections| *connections > 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_with_a_last_chunk_and_their_workers_end_in_time() {
    let workers = Workers::start(3, &[("PHALANX__WEBSOCKET__DRAIN", "2s")]).await;
    for round in 1..=setting("ROUNDS", 1) as usize {
        let mut streams = Vec::new();
        while streams.is_empty() || !has_each_one(&workers, streams.len()).await {
            for _ in 0..6 {
                streams.push(open(&workers).await);
            }
        }
        let old = workers.pids().await;
        workers.parent.signal(Signal::USR2);
        let mut longest = Duration::ZERO;
        for pid in old.values().rev() {
            longest = longest.max(workers.stop_of(*pid).await);
        }
        workers.until_logged("is complete", round).await;
        let number = streams.len();
        for stream in streams {
            timeout(SOON, stream).await.unwrap().unwrap();
        }
        check_time(
            &format!("roll {round}: the longest stop of a worker, of {number} streams"),
            longest,
            DRAIN + SECOND,
        );
        assert_eq!(workers.parent.stderr().matches("ended with exit status 0").count(), 3 * round);
    }
    workers.stop().await;
}

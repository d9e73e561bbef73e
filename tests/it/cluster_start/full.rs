//! Workers that have as many connections as they may: `web.max_connections`.

use std::io;

use phalanx_testkit::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Workers;
use crate::client::get;
use crate::cluster::until;
use crate::panics::SOON;

/// The bound of each worker.
const PLACES: usize = 3;

/// A client that keeps its connection open.
struct Client(TcpStream);

impl Client {
    /// Connects, which the kernel does, and sends a request.
    async fn send(workers: &Workers) -> Self {
        let mut client = Self(TcpStream::connect(workers.parent.addr).await.unwrap());
        client.send_again().await;
        client
    }

    async fn send_again(&mut self) {
        self.0.write_all(b"HEAD /api/randomNumber HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }

    /// Reads the whole response.
    async fn check_served(&mut self) {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(self.0.read_buf(&mut head).await.unwrap(), 0, "closed");
            }
        };
        timeout(SOON, reading).await.expect("a response");
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    }

    /// Whether it waits: neither a response came nor the end of the connection.
    fn waits(&self) -> bool {
        self.0.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Connects clients until all places are taken. None is closed, whichever worker it comes to first.
async fn fill(workers: &Workers, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::send(workers).await;
        client.check_served().await;
        clients.push(client);
    }
    clients
}

/// How often each worker has stopped accepting.
async fn times_full(workers: &Workers) -> Vec<u64> {
    let mut times = Vec::new();
    for worker in workers.status().await["workers"].as_array().unwrap() {
        let admin = worker["admin"].as_str().unwrap().parse().unwrap();
        let metrics = String::from_utf8(get(admin, "/metrics").await.body).unwrap();
        let count = "phalanx_bound_reached_total{bound=\"web.max_connections\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(count));
        times.push(count.map_or(0, |count| count.parse().unwrap()));
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_worker_leaves_clients_to_its_sibling_and_the_next_one_waits_for_a_place() {
    let places = PLACES.to_string();
    let environment = [
        ("PHALANX__WEB__MAX_CONNECTIONS", places.as_str()),
        ("PHALANX__WEB__HEADER_TIMEOUT", "5m"), // idle connections stay open
        ("PHALANX__WEB__DRAIN", "100ms"),
    ];
    let workers = Workers::start(2, &environment).await;
    let mut clients = fill(&workers, 2 * PLACES).await;
    until("each has as many as it may", SOON, async || {
        let status = workers.status().await;
        status["workers"].as_array().unwrap().iter().all(|worker| worker["connections"] == PLACES)
    })
    .await;
    until("both have counted it", SOON, async || times_full(&workers).await == [1, 1]).await;

    let mut waiting = Client::send(&workers).await;
    for client in &mut clients {
        client.send_again().await;
        client.check_served().await;
    }
    assert!(waiting.waits());
    clients.pop();
    waiting.check_served().await;
    clients.push(waiting);
    until("one was full again", SOON, async || times_full(&workers).await.iter().sum::<u64>() == 3).await;

    let mut waiting = Client::send(&workers).await;
    let before = workers.pids().await;
    assert!(waiting.waits());
    workers.roll().await;
    waiting.check_served().await;
    let after = workers.pids().await;
    assert!(after.len() == 2 && after.values().all(|pid| !before.values().any(|old| old == pid)), "{after:?}");
    drop((clients, waiting));
    fill(&workers, 2 * PLACES).await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_worker_that_stops_serves_who_waits_in_the_queue_once_a_place_is_free() {
    let mut workers = Workers::start(1, &[("PHALANX__WEB__MAX_CONNECTIONS", "1")]).await;
    let clients = fill(&workers, 1).await;
    let mut waiting = Client::send(&workers).await;
    workers.parent.signal(Signal::TERM);
    workers.until_logged("stopping", 1).await; // of the worker
    drop(clients);
    waiting.check_served().await;
    assert_eq!(workers.parent.ended().await.code(), Some(0), "{}", workers.parent.stderr());
}

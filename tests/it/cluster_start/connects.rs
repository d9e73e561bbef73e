//! Clients that connect all the time, while no worker is ready yet and while all stop, `ROUNDS` times each way (1): each is answered or
//! refused.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal, check_time, free_port, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::deaths::children;
use super::{SECOND, Workers, signal};
use crate::cluster::tasks::harness::setting;
use crate::cluster::until;
use crate::panics::SOON;

const CLIENTS: usize = 8;

/// The time from one attempt of a client to its next.
const PAUSE: Duration = Duration::from_millis(2);

/// The ends of the attempts of all clients.
#[derive(Default)]
struct Ends {
    answered: AtomicUsize,
    refused: AtomicUsize,
    reset: AtomicUsize,
    slowest: Mutex<Duration>,
    is_over: AtomicBool,
}

/// Clients of which each makes one request after the other, on a connection of its own.
struct Attempts {
    ends: Arc<Ends>,
    clients: JoinSet<()>,
}

impl Attempts {
    fn start(addr: SocketAddr) -> Self {
        let (ends, mut clients) = (Arc::<Ends>::default(), JoinSet::new());
        for _ in 0..CLIENTS {
            clients.spawn(ends.clone().attempt(addr));
        }
        Self { ends, clients }
    }

    fn answered(&self) -> usize {
        self.ends.answered.load(Relaxed)
    }

    fn refused(&self) -> usize {
        self.ends.refused.load(Relaxed)
    }

    /// Ends the clients. The longest attempt took as long as one may, and none was reset.
    async fn check(self, when: &str) {
        self.ends.is_over.store(true, Relaxed);
        self.clients.join_all().await;
        let (answered, refused) = (self.ends.answered.load(Relaxed), self.ends.refused.load(Relaxed));
        let reset = self.ends.reset.load(Relaxed);
        print(format_args!("{when}: {answered} clients answered, {refused} refused, {reset} reset"));
        assert_eq!(reset, 0);
        let slowest = *self.ends.slowest.lock().unwrap();
        check_time(&format!("{when}: the longest time to an answer or a refusal"), slowest, SECOND);
    }
}

impl Ends {
    async fn attempt(self: Arc<Self>, addr: SocketAddr) {
        while !self.is_over.load(Relaxed) {
            let begin = Instant::now();
            let ended = timeout(SOON, request(addr)).await.expect("no client hangs");
            let count = match ended {
                Ok(()) => &self.answered,
                Err(ErrorKind::ConnectionRefused) => &self.refused,
                Err(ErrorKind::ConnectionReset) => &self.reset,
                Err(kind) => panic!("{kind}"),
            };
            count.fetch_add(1, Relaxed);
            {
                let mut slowest = self.slowest.lock().unwrap();
                *slowest = begin.elapsed().max(*slowest);
            }
            sleep(PAUSE).await;
        }
    }
}

/// Makes a request; if it was not answered, says how its connection ended.
async fn request(addr: SocketAddr) -> Result<(), ErrorKind> {
    let answered = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(b"GET /api/randomNumber HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok::<_, io::Error>(response)
    };
    let response = answered.await.map_err(|error| error.kind())?;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_refused_at_once_while_redis_is_away_at_the_start() {
    let mut redis = Redis::start().await;
    let (url, port) = (redis.url(), free_port());
    redis.kill().await;
    let environment = [("REDIS_URL", url.as_str()), ("PORT", &port.to_string())];
    let mut parent = Process::spawn_with("tour", &["start", "cluster", "--workers", "3"], &environment);
    until("workers boot", SOON, async || parent.stderr().contains("the backend cannot be reached yet")).await;
    let attempts = Attempts::start(SocketAddr::from(([127, 0, 0, 1], port)));
    until("clients are refused", SOON, async || attempts.refused() > 500).await;
    assert_eq!(attempts.answered(), 0);
    redis.start_again().await;
    parent.ready().await;
    until("clients are answered", SOON, async || attempts.answered() > 500).await;
    attempts.check("a start without Redis").await;
    parent.signal(Signal::TERM);
    assert_eq!(parent.ended().await.code(), Some(0), "{}", parent.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_answered_or_refused_at_once_while_all_stop() {
    let redis = Redis::start().await;
    let url = redis.url();
    let cluster = &["start", "cluster", "--workers", "3"][..];
    let ways = [(&["start"][..], Signal::TERM), (cluster, Signal::TERM), (cluster, Signal::INT)];
    for (arguments, stop) in ways.into_iter().cycle().take(ways.len() * setting("ROUNDS", 1) as usize) {
        let mut process = Process::spawn_with("tour", arguments, &[("REDIS_URL", &url)]);
        process.ready().await;
        let attempts = Attempts::start(process.addr);
        until("clients are answered", SOON, async || attempts.answered() > 500).await;
        assert_eq!(attempts.refused(), 0);
        if stop == Signal::INT {
            // A terminal sends it to all processes of a group; the workers first is the order that tells them less.
            let workers = children(process.pid());
            assert_eq!(workers.len(), 3);
            workers.into_iter().for_each(|(pid, _)| signal(pid, stop));
        }
        process.signal(stop);
        assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
        attempts.check(&format!("{stop:?} to `{}`", arguments.join(" "))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_refused_while_somebody_else_stops_one_worker() {
    let workers = Workers::start(2, &[]).await;
    let pids = workers.pids().await;
    let attempts = Attempts::start(workers.parent.addr);
    signal(pids["phalanx-worker-1"], Signal::TERM);
    workers.until_logged("phalanx-worker-1 ended with exit status 0", 1).await;
    workers.until_ready(2).await;
    assert_eq!(attempts.refused(), 0);
    attempts.check("TERM to one worker").await;
    workers.stop().await;
}

//! The logs of busy workers while their files are moved away: `LINES` lines (6,000) over `ROUNDS` HUPs (3), at `RATE` lines
//! a second. Without that, as a debug build on a busy machine cannot have any rate, the clients do not pause.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_testkit::{Signal, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::streams::has_each_one;
use super::{Workers, ids};
use crate::cluster::tasks::harness::setting;
use crate::cluster::until;
use crate::panics::SOON;

/// Requests in one write.
const BATCH: u64 = 50;

const STATUS: &[u8] = b"HTTP/1.1 404 ";

/// A client that requests pages that are not there, all over one connection, so that one worker logs them all.
struct Client {
    name: usize,
    stream: TcpStream,
    /// The number of its next request.
    next: u64,
}

impl Client {
    async fn connect(addr: SocketAddr, name: usize) -> Self {
        let mut client = Self { name, stream: TcpStream::connect(addr).await.unwrap(), next: 0 };
        client.request().await;
        client
    }

    /// Sends a batch, and reads the responses.
    async fn request(&mut self) {
        let numbers = self.next..self.next + BATCH;
        let requests = numbers.map(|number| format!("GET /client{}/{number} HTTP/1.1\r\nhost: x\r\n\r\n", self.name));
        self.stream.write_all(requests.collect::<String>().as_bytes()).await.unwrap();
        let (mut input, mut seen, mut from) = (Vec::new(), 0, 0);
        while seen < BATCH as usize {
            assert_ne!(self.stream.read_buf(&mut input).await.unwrap(), 0, "closed");
            seen += input[from..].windows(STATUS.len()).filter(|part| *part == STATUS).count();
            from = input.len().saturating_sub(STATUS.len() - 1);
        }
        self.next += BATCH;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_is_in_one_file_in_order_although_the_files_are_moved_away() {
    let (wanted, rounds, rate) = (setting("LINES", 6_000), setting("ROUNDS", 3), setting("RATE", 0));
    // As the guide says for logrotate: else a node moves its file away itself at midnight.
    let mut workers = Workers::start(3, &[("PHALANX__LOG__KEEP", "0")]).await;
    let mut connected = Vec::new();
    while connected.is_empty() || !has_each_one(&workers, connected.len()).await {
        for _ in 0..3 {
            connected.push(Client::connect(workers.parent.addr, connected.len()).await);
        }
    }
    let (lines, mut clients) = (Arc::<AtomicU64>::default(), JoinSet::new());
    let pace = Duration::from_secs(BATCH * connected.len() as u64).checked_div(rate as u32).unwrap_or_default();
    let begin = Instant::now();
    for mut client in connected {
        let lines = lines.clone();
        clients.spawn(async move {
            let mut ticks = (rate > 0).then(|| interval(pace)); // those that it misses come at once, later
            while lines.load(Relaxed) < wanted {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                client.request().await;
                lines.fetch_add(BATCH, Relaxed);
            }
            (client.name, client.next)
        });
    }
    let folder = workers.parent.folder().join("log");
    let path = |id: &str| folder.join(format!("{id}-development.log"));
    let moved = |id: &str, round: u64| folder.join(format!("{id}.moved-{round}"));
    for round in 1..=rounds {
        let so_many = wanted * round / (rounds + 1);
        until("lines are logged", SOON * 10, async || lines.load(Relaxed) >= so_many).await;
        for id in ids(&[1, 2, 3]) {
            fs::rename(path(&id), moved(&id, round)).unwrap();
        }
        workers.parent.signal(Signal::HUP);
        until("there are new files", SOON, async || ids(&[1, 2, 3]).iter().all(|id| path(id).exists())).await;
        assert!(lines.load(Relaxed) < wanted, "the clients went on");
    }
    let requested: BTreeMap<usize, u64> = clients.join_all().await.into_iter().collect();
    let reached = lines.load(Relaxed) as f64 / begin.elapsed().as_secs_f64();
    workers.parent.signal(Signal::TERM);
    assert_eq!(workers.parent.ended().await.code(), Some(0), "{}", workers.parent.stderr());

    let mut logged = BTreeMap::<usize, Vec<u64>>::new();
    let mut files = Vec::new();
    for id in ids(&[1, 2, 3]) {
        for file in (1..=rounds).map(|round| moved(&id, round)).chain([path(&id)]) {
            let text = fs::read_to_string(file).unwrap();
            let requests = text.lines().filter_map(|line| {
                let page = line.split_once("/client")?.1.split_once('"')?.0;
                let (client, number) = page.split_once('/')?;
                Some((client.parse::<usize>().unwrap(), number.parse::<u64>().unwrap()))
            });
            let before: usize = logged.values().map(Vec::len).sum();
            for (client, number) in requests {
                logged.entry(client).or_default().push(number);
            }
            files.push(logged.values().map(Vec::len).sum::<usize>() - before);
        }
    }
    print(format_args!("{reached:.0} lines a second of three workers, {rounds} times moved away; by file: {files:?}"));
    for (client, number) in requested {
        assert!(logged[&client].iter().copied().eq(0..number), "client {client}: {:?}", logged[&client]);
    }
    assert!(reached >= rate as f64 * 0.95, "{reached:.0} instead of {rate} lines a second");
}

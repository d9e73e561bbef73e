//! Clients over plain TCP, each in a thread of its own. They never retry, and have no pool.
//!
//! A request has failed when a byte of it was written and no complete response came. A client that finds its connection
//! closed before it writes makes a new one, like every client with keep-alive; one that is refused counts that, and ends.
#![expect(clippy::disallowed_methods, reason = "no runtime: a client that sleeps has a thread of its own")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use phalanx_testkit::print;
use tokio::time::Instant;

use crate::cluster::tasks::harness::setting;

/// No wait for a byte takes longer.
const SOON: Duration = Duration::from_secs(20);

/// The ways in which clients send their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// On one connection, up to so many milliseconds after another.
    KeepAlive(u64),
    /// Each on a connection of its own.
    New,
    /// The first byte comes up to 200 ms after the connection.
    FirstByteLate,
    /// The head comes in two halves.
    TwoHalves,
    /// The body comes over half a second.
    Upload,
    /// The response has 4 MiB.
    Download,
    /// The action takes 0.3 s.
    Slow,
    /// Two requests in one write.
    Pipelined,
}

impl Class {
    pub(crate) const ALL: [Self; 10] = [
        Self::KeepAlive(1),
        Self::KeepAlive(40),
        Self::KeepAlive(2000),
        Self::New,
        Self::FirstByteLate,
        Self::TwoHalves,
        Self::Upload,
        Self::Download,
        Self::Slow,
        Self::Pipelined,
    ];

    /// Whether its clients send many requests a second. Without rests they keep all cores busy for as long as their test
    /// takes.
    fn rests(self) -> bool {
        matches!(self, Self::KeepAlive(1 | 40) | Self::New | Self::Download | Self::Pipelined)
    }

    /// The number of its clients. Those that are quiet for longest are `CLIENTS` (50).
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::KeepAlive(2000) => setting("CLIENTS", 50) as usize,
            Self::KeepAlive(_) => 16,
            Self::Upload | Self::Pipelined => 4,
            Self::Download => 2,
            _ => 8,
        }
    }

    fn request(self, targets: &Targets) -> String {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        match self {
            Self::Upload => format!(
                "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                targets.upload,
                UPLOAD.concat().len()
            ),
            Self::Download => get(targets.download),
            Self::Slow => get(targets.slow),
            Self::Pipelined => get(targets.short).repeat(2),
            _ => get(targets.short),
        }
    }
}

/// The pieces of an upload, one each 50 ms.
const UPLOAD: [&str; 10] = ["{\"text\":", "\"1", "2", "3", "4", "5", "6", "7", "8", "9\"}"];

/// The requests of a client before it rests for up to `REST_MS` (2,000): other tests have the cores meanwhile.
const BURST: usize = 10;

/// What the classes request of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    pub(crate) short: &'static str,
    /// Takes 0.3 s.
    pub(crate) slow: &'static str,
    /// Has 4 MiB.
    pub(crate) download: &'static str,
    /// Takes JSON with a `text`.
    pub(crate) upload: &'static str,
}

/// The requests of one class.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) complete: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// The clients that were refused.
    pub(crate) refused: AtomicUsize,
    /// From the first byte of each complete request to the last of its response, with the time for its connection if it is
    /// the first there. None before [`Clients::take_times`].
    times: Mutex<Option<Vec<Duration>>>,
    /// Whether the clients are to end.
    has_ended: AtomicBool,
}

/// The clients of one class.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts so many clients, which send requests until the node refuses connections, or they are to end.
    pub(crate) fn start(class: Class, clients: usize, addr: SocketAddr, targets: Targets) -> Self {
        let counts = Arc::<Counts>::default();
        let threads = (1..=clients).map(|number| {
            let (counts, seed) = (counts.clone(), (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let client = move || run(class, addr, &targets, seed, &counts);
            thread::Builder::new().stack_size(256 << 10).spawn(client).unwrap()
        });
        Self { threads: threads.collect(), counts }
    }

    /// Waits until so many responses came.
    pub(crate) async fn until(&self, complete: usize) {
        while self.counts.complete.load(Relaxed) < complete {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The times of the requests since the last call. They are recorded from the first call on.
    pub(crate) fn take_times(&self) -> Vec<Duration> {
        self.counts.times.lock().unwrap().replace(Vec::new()).unwrap_or_default()
    }

    /// Lets each client end after its request.
    pub(crate) fn end(&self) {
        self.counts.has_ended.store(true, Relaxed);
    }

    /// Waits until all clients have ended.
    pub(crate) async fn ended(&mut self) {
        for thread in self.threads.drain(..) {
            tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
        }
    }
}

fn run(class: Class, addr: SocketAddr, targets: &Targets, seed: u64, counts: &Counts) {
    let mut pauses = Pauses(seed);
    let request = class.request(targets);
    let rest = if class.rests() { setting("REST_MS", 2000) } else { 0 };
    let mut sent = 0;
    while !counts.has_ended.load(Relaxed) {
        let begin = Instant::now();
        let Ok(stream) = TcpStream::connect(addr) else {
            counts.refused.fetch_add(1, Relaxed);
            return;
        };
        let mut connected_in = begin.elapsed();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection { stream, input: Vec::new() };
        loop {
            connection.pause(class, &mut pauses);
            if sent == BURST {
                pauses.up_to(rest);
                sent = 0;
            }
            sent += 1;
            if connection.is_closed() {
                break;
            }
            let begin = Instant::now();
            let is_last = match connection.exchange(class, request.as_bytes(), &mut pauses) {
                Ok(is_last) => is_last,
                Err(error) => {
                    if counts.failed.fetch_add(1, Relaxed) == 0 {
                        print(format_args!("{class:?}: a request failed after {:?}: {error}", begin.elapsed()));
                    }
                    break;
                }
            };
            let took = std::mem::take(&mut connected_in) + begin.elapsed();
            if let Some(times) = &mut *counts.times.lock().unwrap() {
                times.push(took);
            }
            counts.complete.fetch_add(1, Relaxed);
            if is_last || class == Class::New || counts.has_ended.load(Relaxed) {
                break;
            }
        }
    }
}

/// Random pauses (xorshift).
struct Pauses(u64);

impl Pauses {
    /// Sleeps for up to so many milliseconds.
    fn up_to(&mut self, ms: u64) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        sleep(Duration::from_micros(self.0 % (ms * 1000 + 1)));
    }
}

struct Connection {
    stream: TcpStream,
    /// The bytes that were read, and belong to no response yet.
    input: Vec<u8>,
}

impl Connection {
    fn pause(&self, class: Class, pauses: &mut Pauses) {
        match class {
            Class::KeepAlive(ms) => pauses.up_to(ms),
            Class::FirstByteLate => pauses.up_to(200),
            _ => pauses.up_to(5),
        }
    }

    /// Whether the server has closed the connection, and the client can know.
    fn is_closed(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the response; returns whether that was the last of the connection.
    fn exchange(&mut self, class: Class, request: &[u8], pauses: &mut Pauses) -> io::Result<bool> {
        match class {
            Class::TwoHalves => {
                let (first, second) = request.split_at(request.len() / 2);
                self.stream.write_all(first)?;
                pauses.up_to(100);
                self.stream.write_all(second)?;
            }
            Class::Upload => {
                self.stream.write_all(request)?;
                for piece in UPLOAD {
                    sleep(Duration::from_millis(50));
                    self.stream.write_all(piece.as_bytes())?;
                }
            }
            _ => self.stream.write_all(request)?,
        }
        // A response that says `close` says that nothing after it was run.
        let is_last = self.response()?;
        if class == Class::Pipelined && !is_last { self.response() } else { Ok(is_last) }
    }

    /// Reads a response; returns whether it says `close`.
    fn response(&mut self) -> io::Result<bool> {
        let head = self.until(b"\r\n\r\n")?.to_ascii_lowercase();
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        if !head.starts_with("http/1.1 200 ") {
            return Err(io::Error::other(head));
        }
        let header = |name: &str| head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name);
        if let Some((_, length)) = header("content-length") {
            self.take(length.parse().map_err(io::Error::other)?)?;
        } else {
            loop {
                let size = String::from_utf8(self.until(b"\r\n")?).map_err(io::Error::other)?;
                let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
                self.take(size + 2)?;
                if size == 0 {
                    break;
                }
            }
        }
        Ok(header("connection").is_some_and(|(_, value)| value == "close"))
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            self.read()?;
        }
    }

    fn take(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < bytes {
            self.read()?;
        }
        let rest = self.input.split_off(bytes);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let bytes = self.stream.read(&mut buffer)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&buffer[..bytes]);
        Ok(())
    }
}

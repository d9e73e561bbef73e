//! A real Redis for one test: the `redis-server` of the system, or the program that `REDIS_SERVER` names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::ServerClock;
use crate::port::free_port;
use crate::resp::value_len;
use crate::signal::{freeze_child, signal_child};

/// The limit for every wait on a server.
const SOON: Duration = Duration::from_secs(20);

/// How often a server that ends at once is started again: another process may have taken its port.
const TRIES: usize = 5;

/// The names of the clusters in tests.
const CLUSTERS: [&str; 2] = ["tour", "laws"];

/// The keys and channels that a node of a cluster needs, in the syntax of Redis's ACLs.
pub const KEYS: &str = "~actionhero:* ~phalanx:<cluster>:* ~resque:* &<cluster> &<cluster>:*";

/// The channels of a cluster in another database than 0.
const CHANNELS_OF_DATABASE_1: [&str; 2] = ["tour@1", "tour@1:*"];

/// The commands that a node needs.
pub const COMMANDS: &str = "+ping +select +evalsha +script|load +publish +subscribe +unsubscribe +time +scan +type +exists +del \
    +pttl +pexpire +get +set +incr +incrby +rpush +lpop +llen +lrange +lrem +ltrim +hset +hget +hdel +hlen +hexists +hgetall +hmget \
    +hkeys +hscan +sadd +srem +scard +sismember +smembers +zadd +zrem +zscore +zrangebyscore +hsetnx +zcard +zmscore +zrange \
    +zremrangebyscore +zremrangebyrank +lpush +lpos +lindex +expire +getbit +setbit";

/// The additional rules for a node that exchanges messages with Actionhero nodes.
pub const INTEROP: &str = "&actionhero";

/// The variable with the path of another server, such as an older release or Valkey.
const SERVER: &str = "REDIS_SERVER";

/// The argument for the port on which the servers of a Redis Cluster exchange their state, from Redis 7 on.
const CLUSTER_PORT: &str = "--cluster-port";

/// The folders of its data, and of a copy of them.
const DATA: &str = "data";
const KEPT: &str = "kept";

/// A redis-server that stores its data on disk, in a folder of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server on a free port.
    ///
    /// # Panics
    ///
    /// If redis-server is not installed, or does not get ready.
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// Starts a server that writes to the disk before each reply (`appendfsync always`).
    ///
    /// # Panics
    ///
    /// As for [`Redis::start`].
    pub async fn start_syncing() -> Self {
        Self::start_with(["--appendfsync", "always"].map(str::to_owned).into()).await
    }

    /// Starts a server in cluster mode that has all slots.
    ///
    /// # Panics
    ///
    /// As for [`Redis::start`].
    pub async fn start_in_cluster_mode() -> Self {
        let redis = Self::start_with(cluster_mode().await).await;
        let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
        for some in slots.chunks(4096) {
            redis.command(&format!("CLUSTER ADDSLOTS {}", some.join(" "))).await; // a line has 64 KiB at most
        }
        redis.until_its_cluster_serves().await;
        redis
    }

    /// Starts another server of the Redis Cluster that this one is in, without slots.
    ///
    /// # Panics
    ///
    /// As for [`Redis::start`].
    pub async fn start_beside(&self) -> Self {
        let beside = Self::start_with(cluster_mode().await).await;
        let bus = beside.arguments.iter().skip_while(|argument| **argument != CLUSTER_PORT).nth(1);
        let bus = bus.cloned().unwrap_or_else(|| (beside.port + 10_000).to_string()); // as it is without the setting
        self.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", beside.port)).await;
        beside.until_its_cluster_serves().await;
        beside
    }

    async fn until_its_cluster_serves(&self) {
        let serving = async {
            while !self.command("CLUSTER INFO").await.contains("cluster_state:ok") {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, serving).await.expect("a cluster with all slots serves");
    }

    /// Starts a server whose clock [`Redis::set_clock`] sets.
    ///
    /// # Panics
    ///
    /// As for [`Redis::start`], and without a C compiler.
    pub async fn start_with_clock() -> Self {
        let folder = new_folder();
        ServerClock::in_folder(folder.path()).build().await;
        Self::start_in(folder, Vec::new()).await
    }

    /// Sets its clock by so many seconds against that of the machine.
    ///
    /// # Panics
    ///
    /// If it was not started by [`Redis::start_with_clock`].
    pub fn set_clock(&self, seconds: i64) {
        ServerClock::in_folder(self.folder.path()).set(seconds);
    }

    async fn start_with(arguments: Vec<String>) -> Self {
        Self::start_in(new_folder(), arguments).await
    }

    async fn start_in(folder: TempDir, arguments: Vec<String>) -> Self {
        for _ in 0..TRIES {
            let port = free_port();
            if let Some(child) = spawn(&folder, port, &arguments).await {
                return Self { child, folder, port, arguments };
            }
        }
        panic!("redis-server does not start")
    }

    /// The address of the server.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }

    /// The URL for nodes, with a user that has only the permissions that a node needs.
    pub fn url(&self) -> String {
        self.url_through(self.addr())
    }

    /// The same URL with the address of a proxy.
    pub fn url_through(&self, addr: SocketAddr) -> String {
        format!("redis://phalanx:secret@{addr}")
    }

    /// Kills it. Everything that it confirmed is on disk.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Starts it again with its data, after [`Redis::kill`].
    ///
    /// # Panics
    ///
    /// If it is still running.
    pub async fn start_again(&mut self) {
        assert!(self.child.id().is_none(), "a server that runs is killed first");
        self.child = spawn(&self.folder, self.port, &self.arguments).await.expect("no other process takes its port");
    }

    /// Starts it again without its data, after [`Redis::kill`].
    ///
    /// # Panics
    ///
    /// If it is still running.
    pub async fn start_empty(&mut self) {
        let data = self.folder.path().join(DATA);
        std::fs::remove_dir_all(&data).and_then(|()| std::fs::create_dir(&data)).expect("its data is there");
        self.start_again().await;
    }

    /// Keeps a copy of its data as it is now.
    ///
    /// # Panics
    ///
    /// If its folder cannot be written.
    pub fn keep(&self) {
        copy(&self.folder.path().join(DATA), &self.folder.path().join(KEPT)).expect("its folder is writable");
    }

    /// Starts it again with the data of [`Redis::keep`], after [`Redis::kill`].
    ///
    /// # Panics
    ///
    /// If it is still running, or has kept nothing.
    pub async fn start_older(&mut self) {
        let [data, kept] = [DATA, KEPT].map(|name| self.folder.path().join(name));
        std::fs::remove_dir_all(&data).and_then(|()| std::fs::rename(kept, data)).expect("it has kept its data");
        self.start_again().await;
    }

    /// Runs one command, written as for redis-cli, and returns the raw reply.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn command(&self, command: &str) -> String {
        let reply = async {
            let mut stream = TcpStream::connect(self.addr()).await.expect("the server runs");
            stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("it reads");
            let mut received = Vec::new();
            while received.is_empty() || value_len(&received).is_none() {
                assert!(stream.read_buf(&mut received).await.expect("it answers") > 0, "it answers {command}");
            }
            String::from_utf8_lossy(&received).into_owned()
        };
        timeout(SOON, reply).await.expect("the server answers")
    }

    /// Publishes a message without being a node.
    pub async fn publish(&self, channel: &str, message: &str) {
        let quoted = message.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        self.command(&format!("PUBLISH {channel} \"{quoted}\"")).await;
    }

    /// How often a command has run, by the statistics of the server.
    pub async fn ran(&self, command: &str) -> u64 {
        let stats = self.command("INFO commandstats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()).and_then(|calls| calls.parse().ok()).unwrap_or(0)
    }

    /// Subscribes to all channels without being a node. Every PUBLISH then counts one receiver more.
    ///
    /// # Panics
    ///
    /// If the server does not run.
    pub async fn watch(&self) -> Watch {
        let mut stream = TcpStream::connect(self.addr()).await.expect("the server runs");
        stream.write_all(b"PSUBSCRIBE *\r\n").await.expect("it reads");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (writing, mut bytes) = (seen.clone(), Vec::new());
        while value_len(&bytes).is_none() {
            assert!(stream.read_buf(&mut bytes).await.expect("it answers") > 0, "it confirms");
        }
        bytes.clear();
        let reading = tokio::spawn(async move {
            while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                while let Some(len) = Some(&bytes).filter(|bytes| !bytes.is_empty()).and_then(|bytes| value_len(bytes))
                {
                    let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
                    // *4, $8, pmessage, $1, *, $len, channel, $len, message
                    let mut parts = message.splitn(9, "\r\n").skip(6);
                    let channel = parts.next().unwrap_or_default().to_owned();
                    let text = parts.nth(1).unwrap_or_default().trim_end_matches("\r\n").to_owned();
                    writing.lock().unwrap_or_else(PoisonError::into_inner).push((channel, text));
                    bytes.drain(..len);
                }
            }
        });
        Watch { seen, reading }
    }

    /// Stops the process, and returns when none of its threads runs any more: it closes no connection and answers
    /// nothing until [`Redis::thaw`].
    pub fn freeze(&self) {
        freeze_child(self.pid());
    }

    /// Continues the process.
    pub fn thaw(&self) {
        signal_child(self.pid(), Signal::CONT);
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }
}

/// A subscription to all channels.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<(String, String)>>>,
    reading: JoinHandle<()>,
}

impl Watch {
    /// The channels of all messages so far, in order.
    pub fn seen(&self) -> Vec<String> {
        self.all().into_iter().map(|(channel, _)| channel).collect()
    }

    /// All messages of one channel so far, in order.
    pub fn on(&self, channel: &str) -> Vec<String> {
        self.all().into_iter().filter(|(on, _)| on == channel).map(|(_, text)| text).collect()
    }

    fn all(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn new_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    std::fs::create_dir(folder.path().join(DATA)).expect("a new folder takes files");
    folder
}

/// The arguments of a server in cluster mode.
async fn cluster_mode() -> Vec<String> {
    let mut arguments: Vec<String> = ["--cluster-enabled", "yes"].map(str::to_owned).into();
    if major().await >= 7 {
        arguments.extend([CLUSTER_PORT.to_owned(), free_port().to_string()]);
    }
    arguments
}

fn server() -> String {
    std::env::var(SERVER).unwrap_or_else(|_| "redis-server".to_owned())
}

/// The first number of the server's version.
async fn major() -> u32 {
    static MAJOR: OnceCell<u32> = OnceCell::const_new();
    let read = async || {
        let shown = Command::new(server()).arg("--version").output().await;
        let shown = shown.expect("redis-server is installed: tests/run.sh does it");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let number = shown.split_once("v=").and_then(|(_, version)| version.split('.').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("a server shows its version: {shown}"))
    };
    *MAJOR.get_or_init(read).await
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Starts a server; `None` if another process has the port.
async fn spawn(folder: &TempDir, port: u16, arguments: &[String]) -> Option<Child> {
    // Before 7.0 there is no such setting, and the command is allowed.
    let debug: &[&str] = if major().await >= 7 { &["--enable-debug-command", "yes"] } else { &[] };
    let mut command = Command::new(server());
    ServerClock::in_folder(folder.path()).preload(&mut command);
    let mut child = command
        // Data is written before the reply is sent, and survives a killed process without an fsync.
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "no"])
        .args(["--port", &port.to_string(), "--daemonize", "no"])
        .args(debug)
        // Before 7.0 a user has all channels until they are reset.
        .args(["--user", "phalanx", "on", ">secret", "resetchannels"])
        .args(CLUSTERS.map(|cluster| KEYS.replace("<cluster>", cluster)).join(" ").split(' '))
        .args(CHANNELS_OF_DATABASE_1.map(|channel| format!("&{channel}")))
        .args(COMMANDS.split(' '))
        .args(arguments)
        .current_dir(folder.path().join(DATA))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed: tests/run.sh does it");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("Ready to accept connections") {
                return true;
            }
        }
        false
    };
    if !timeout(SOON, ready).await.expect("redis-server gets ready or ends") {
        return None;
    }
    // The log is read to the end, so that a full pipe never blocks the server.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some(child)
}

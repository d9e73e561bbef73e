//! A real redis-server of a test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a server may take to start or to end.
const SOON: Duration = Duration::from_secs(20);

/// Below those that the system hands out by itself, so that nobody takes the port of a server that restarts.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried.
const TRIES: usize = 50;

/// A redis-server that keeps its data on disk, in a folder of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Redis {
    /// Starts a server on a free port.
    ///
    /// # Panics
    ///
    /// If redis-server is not installed, or does not get ready.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        for _ in 0..TRIES {
            let port = rand::random_range(PORTS);
            if let Some(child) = spawn(&folder, port).await {
                return Self { child, folder, port };
            }
        }
        panic!("no port of {PORTS:?} is free")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }

    /// How clients are told of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Kills it. What it answered with OK is on disk.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Starts it again with its data, after [`Redis::kill`].
    ///
    /// # Panics
    ///
    /// If it runs.
    pub async fn start_again(&mut self) {
        assert!(self.child.id().is_none(), "a server that runs is killed first");
        self.child = spawn(&self.folder, self.port).await.expect("nobody else takes its port");
    }

    /// Starts it again with nothing, after [`Redis::kill`].
    ///
    /// # Panics
    ///
    /// If it runs.
    pub async fn start_empty(&mut self) {
        std::fs::remove_dir_all(self.folder.path().join("appendonlydir")).expect("its data is there");
        self.start_again().await;
    }

    /// Stops its clock: it closes nothing and answers nothing, until [`Redis::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the server runs");
        let pid = Pid::from_raw(id as i32).expect("a process id is not zero");
        kill_process(pid, signal).expect("a process of ours takes signals");
    }
}

/// Starts a server; `None` if somebody else has the port.
async fn spawn(folder: &TempDir, port: u16) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--port", &port.to_string(), "--daemonize", "no"])
        .current_dir(folder.path())
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
    // Its log is read to the end, so that it never waits for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some(child)
}

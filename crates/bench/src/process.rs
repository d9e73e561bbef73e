//! A server under test: a child process, its address, its CPU time and its memory.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{Anyhow, ceiling};

/// The limit for a server to print its address, also in valgrind, and to stop.
const READY: Duration = Duration::from_secs(60);

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The folder of a node's pid file.
    _pids: TempDir,
    pid: u32,
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts the tour as it would run in production, on one thread.
    pub(crate) async fn tour(binary: &Path) -> Result<Self, Anyhow> {
        Self::start(Self::tour_command(Command::new(binary))).await
    }

    /// Starts it in valgrind, which writes to `log` how many instructions there were when it ends.
    pub(crate) async fn tour_in_valgrind(binary: &Path, log: &Path) -> Result<Self, Anyhow> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(format!("--log-file={}", log.display())).arg(binary);
        Self::start(Self::tour_command(command)).await
    }

    /// Starts the tour as a member of a cluster.
    pub(crate) async fn tour_in_cluster(binary: &Path, redis_url: &str) -> Result<Self, Anyhow> {
        let mut command = Self::tour_command(Command::new(binary));
        command.env("REDIS_URL", redis_url).env("PHALANX__GENERAL__SERVER_TOKEN", crate::apply::TOKEN);
        Self::start(command).await
    }

    /// Starts the node of [`crate::node`] on one thread, on the memory backend or at a Redis.
    pub(crate) async fn node(redis_url: Option<&str>) -> Result<Self, Anyhow> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("node").args(redis_url);
        Self::start(command).await
    }

    /// Starts the replying side of the ceiling for calls.
    pub(crate) async fn redis_echo(redis: SocketAddr) -> Result<Self, Anyhow> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo").arg(redis.to_string());
        Self::start(command).await
    }

    fn tour_command(mut command: Command) -> Command {
        command
            .env("PHALANX_ENV", "production")
            .env("PHALANX__WEB__ACCESS_LOG", "false")
            .env("PHALANX__ADMIN__BIND", "127.0.0.1:0")
            .env("RUST_LOG", "warn")
            .env("TOKIO_WORKER_THREADS", "1")
            .env("BIND", "127.0.0.1")
            .env("PORT", "0")
            .env_remove("REDIS_URL");
        command
    }

    /// Starts a ceiling.
    pub(crate) async fn ceiling(kind: ceiling::Kind, headers: &[String]) -> Result<Self, Anyhow> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("ceiling").arg(kind.as_str());
        for header in headers {
            command.arg("--header").arg(header);
        }
        Self::start(command).await
    }

    async fn start(mut command: Command) -> Result<Self, Anyhow> {
        let pids = TempDir::new()?;
        command.env("PHALANX__PATHS__PID", pids.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let pid = child.id().ok_or("the server ended at once")?;
        let out = child.stdout.take().ok_or("the server has no stdout")?;
        let mut lines = BufReader::new(out).lines();
        let line = timeout(READY, lines.next_line()).await??.ok_or("the server ended before it listened")?;
        let addr =
            line.rsplit('/').next().unwrap_or_default().parse().map_err(|_| format!("no address in {line:?}"))?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, _pids: pids, pid, addr })
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), Anyhow> {
        let pid = Pid::from_raw(self.pid as i32).ok_or("a process id is not zero")?;
        kill_process(pid, Signal::TERM)?;
        timeout(READY, self.child.wait()).await??;
        Ok(())
    }

    /// The CPU time of all its threads so far, as the scheduler counts it: in nanoseconds, not ticks.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += text.split_ascii_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS in /proc"))
    }
}

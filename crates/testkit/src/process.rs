//! Real node processes: started, observed, and killed with real signals.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

pub use rustix::process::Signal;

use crate::signal::{freeze_child, signal_child};

/// The limit for every wait on a process.
const SOON: Duration = Duration::from_secs(30);

/// An example that runs as a process of its own, in a folder of its own. The process is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    /// The address for clients.
    pub addr: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
}

impl Process {
    /// Starts an example, or the program at a path, on free ports and with additional environment variables; waits
    /// until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not print its addresses.
    pub async fn start(example: &str, environment: &[(&str, &str)]) -> Self {
        let mut process = Self::spawn(example, environment);
        process.ready().await;
        process
    }

    /// Does the same without the wait: the addresses are known after [`Process::ready`].
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn spawn(example: &str, environment: &[(&str, &str)]) -> Self {
        Self::spawn_with(example, &[], environment)
    }

    /// Does the same with arguments.
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn spawn_with(example: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        let log = std::fs::File::create(folder.path().join("stderr")).expect("a new folder takes files");
        Self::spawn_in(folder, example, arguments, environment, log.into())
    }

    /// Does the same with another stderr than a file.
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn spawn_with_stderr(example: &str, environment: &[(&str, &str)], stderr: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        Self::spawn_in(folder, example, &[], environment, stderr.into())
    }

    fn spawn_in(
        folder: TempDir,
        example: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stderr: Stdio,
    ) -> Self {
        let mut child = command(example, folder.path())
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("the example was built and can be run");
        let stdout = child.stdout.take().expect("stdout is piped");
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, stdout: BufReader::new(stdout).lines(), folder, addr: unknown, admin: unknown }
    }

    /// Waits until the process is ready, also a second time when it restarts in place.
    ///
    /// # Panics
    ///
    /// If it does not print its addresses.
    pub async fn ready(&mut self) {
        assert!(self.is_ready().await, "it ended before; stderr:\n{}", self.stderr());
    }

    /// Does the same, and returns false if the process ends instead.
    ///
    /// # Panics
    ///
    /// If it does neither, or prints something else.
    pub async fn is_ready(&mut self) -> bool {
        let Some(addr) = self.ready_line("listening on http://").await else { return false };
        self.addr = addr;
        self.admin = self.ready_line("admin on http://").await.expect("it prints both lines");
        true
    }

    /// Reads the next line of stdout, which is an address after `start`; `None` if stdout ends.
    async fn ready_line(&mut self, start: &str) -> Option<SocketAddr> {
        let line = timeout(SOON, self.stdout.next_line()).await.expect("the process gets ready").expect("UTF-8")?;
        let addr = line.strip_prefix(start).and_then(|addr| addr.parse().ok());
        Some(addr.unwrap_or_else(|| panic!("expected {start:?}, found {line:?}; stderr:\n{}", self.stderr())))
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) {
        signal_child(self.pid(), signal);
    }

    /// Stops the process, and returns when none of its threads runs any more; [`Process::thaw`] continues it.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn freeze(&self) {
        freeze_child(self.pid());
    }

    /// Continues the process after [`Process::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(SOON, self.child.wait()).await.expect("the process ends").expect("a child can be waited for")
    }

    /// The lines on stdout that were not read yet, until the process closes it.
    ///
    /// # Panics
    ///
    /// If they are not text, or the process does not end.
    pub async fn rest_of_stdout(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = timeout(SOON, self.stdout.next_line()).await.expect("stdout ends").expect("UTF-8") {
            rest.push(line);
        }
        rest
    }

    /// The content of stderr so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The folder in which it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The resident memory, in bytes.
    ///
    /// # Errors
    ///
    /// If `/proc` does not contain it.
    pub fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS in /proc"))
    }
}

/// Runs an example with these arguments until it ends by itself.
///
/// # Panics
///
/// If it does not end.
pub async fn run(example: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    let mut command = command(example, folder.path());
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    timeout(SOON, command.output()).await.expect("the example ends").expect("the example was built and can be run")
}

/// A command for an example, or for the program at a path, in this folder and without the settings in this process's
/// environment.
///
/// # Panics
///
/// If there is no such example.
pub fn command(example: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary(example));
    let is_setting = |name: &str| name.starts_with("PHALANX") || ["REDIS_URL", "RUST_LOG"].contains(&name);
    for (name, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("PORT", "0").env("BIND", "127.0.0.1").env("PHALANX__ADMIN__BIND", "127.0.0.1:0");
    command
}

/// The path of an example: one level above the folder of this test.
///
/// # Panics
///
/// If it was not built.
pub fn binary(example: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folder = own.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    let path = folder.join(example);
    assert!(path.exists(), "{} is missing: `cargo build --workspace --bins` makes it", path.display());
    path
}

//! A worker of `start cluster` as its parent sees it: the test is the parent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use phalanx_supervisor::link::{Handover, PROTOCOL, ParentLink, ParentMessage, Reception, WorkerMessage};
use phalanx_testkit::{Signal, check_time, command, run};
use rustix::net::{AddressFamily, SocketType, bind, socket};
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Socket, get};
use crate::cluster::until;
use crate::panics::SOON;

/// A worker, and the parent's end of the link to it.
struct Worker {
    child: Child,
    link: Option<ParentLink>,
    /// The parent's copy of the socket for clients.
    socket: OwnedFd,
    addr: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
}

/// A socket that is bound and does not listen.
fn bound() -> (OwnedFd, SocketAddr) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let copy = TcpListener::from(socket.try_clone().unwrap());
    let addr = copy.local_addr().unwrap();
    (socket, addr)
}

impl Worker {
    fn spawn(environment: &[(&str, &str)]) -> Self {
        Self::spawn_with(environment, |_| {})
    }

    fn spawn_with(environment: &[(&str, &str)], change: impl FnOnce(&mut Handover)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ((socket, addr), (admin_socket, admin)) = (bound(), bound());
        let mut handover = Handover::new("0.3.1", "phalanx-worker-1", &["web".to_owned(), "worker".to_owned()], 2);
        handover.add(Handover::WEB, socket.try_clone().unwrap());
        handover.add(Handover::ADMIN, admin_socket);
        change(&mut handover);
        let (link, stdin) = ParentLink::with_handover(&handover).unwrap();
        let (out, err) = ["stdout", "stderr"].map(|name| fs::File::create(folder.path().join(name)).unwrap()).into();
        let mut command = command("tour", folder.path());
        command.args(["start", "--supervised"]).envs(environment.iter().copied());
        command.stdin(stdin).stdout(out).stderr(err).kill_on_drop(true);
        Self { child: command.spawn().unwrap(), link: Some(link), socket, addr, admin, folder }
    }

    fn link(&self) -> &ParentLink {
        self.link.as_ref().unwrap()
    }

    /// Waits for the next message.
    async fn message(&self) -> WorkerMessage {
        let received = async {
            loop {
                match self.link().receive().unwrap() {
                    Reception::Message(message) => return message,
                    Reception::Empty => sleep(Duration::from_millis(5)).await,
                    Reception::Closed => panic!("the worker has closed the link: {}", self.stderr()),
                }
            }
        };
        timeout(SOON, received).await.unwrap_or_else(|_| panic!("no message: {}", self.stderr()))
    }

    async fn ready(&self) {
        let message = self.message().await;
        assert!(matches!(message, WorkerMessage::Ready { .. }), "{message:?}");
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), signal).unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        timeout(SOON, self.child.wait()).await.unwrap_or_else(|_| panic!("{}", self.stderr())).unwrap().code()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

/// A call that runs for a minute.
async fn long_call(addr: SocketAddr) -> Socket {
    let mut socket = Socket::connect(addr).await;
    socket.send(r#"{"event":"action","params":{"action":"sleepTest","sleepDuration":60000}}"#).await;
    socket.request(r#"{"event":"detailsView"}"#).await;
    socket
}

#[tokio::test]
async fn a_worker_has_its_id_and_its_sockets_from_its_parent_and_beats() {
    let mut worker = Worker::spawn(&[("PHALANX_TITLE", "other"), ("PORT", "1")]);
    let ready = worker.message().await;
    let expected = WorkerMessage::Ready {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        web: Some(worker.addr),
        admin: Some(worker.admin),
    };
    assert_eq!(ready, expected);
    assert_eq!(worker.file("pids/phalanx-worker-1.pid"), worker.pid().to_string());
    assert_eq!(get(worker.admin, "/readyz").await.status, 200);
    let status = get(worker.addr, "/api/nodes").await.json();
    assert_eq!(status["nodes"][0]["id"], "phalanx-worker-1", "{status}");
    assert_eq!(status["nodes"][0]["roles"], serde_json::json!(["web", "worker"]), "{status}");
    let _socket = Socket::connect(worker.addr).await;
    let beats = async {
        loop {
            if let WorkerMessage::Beat { connections: 1, sockets: 1 } = worker.message().await {
                return;
            }
        }
    };
    timeout(SOON, beats).await.expect("a beat with its socket");
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", worker.pid())).unwrap().trim(), "100");
    assert_eq!(fs::read_link(format!("/proc/{}/fd/0", worker.pid())).unwrap(), Path::new("/dev/null"));
    let expected = format!("restart the parent parent={} own=127.0.0.1:1", worker.addr);
    assert!(worker.stderr().contains(&expected), "{}", worker.stderr());
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await, Some(0), "{}", worker.stderr());
    assert_eq!(worker.file("stdout"), "", "the parent prints the addresses");
}

#[tokio::test]
async fn clients_are_refused_until_the_first_worker_is_ready() {
    let redis_is_away = [("REDIS_URL", "redis://127.0.0.1:1")];
    let mut worker = Worker::spawn(&redis_is_away);
    let waits = async || worker.stderr().contains("the backend cannot be reached yet");
    until("it waits for redis", SOON, waits).await;
    assert!(TcpStream::connect(worker.addr).await.is_err());
    let begin = Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await, Some(0), "{}", worker.stderr());
    check_time("TERM to the end of a worker that boots", begin.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_worker_that_is_replaced_leaves_the_clients_that_wait_to_its_neighbours() {
    let mut worker = Worker::spawn(&[("PHALANX__GENERAL__STOP_DELAY", "1m")]);
    worker.ready().await;
    let mut open = TcpStream::connect(worker.addr).await.unwrap();
    open.write_all(b"GET /api/sleepTest?sleepDuration=500 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("it runs", SOON, async || get(worker.addr, "/api/status").await.status == 200).await;
    worker.link().send(ParentMessage::Stop { with_all: false }).unwrap();
    until("it stops", SOON, async || worker.stderr().contains("stopping")).await;
    let is_closed = async || {
        let fds = fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let own = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&worker.socket))).unwrap();
        links.all(|link| link != own)
    };
    until("its copy of the socket is closed", SOON, is_closed).await;
    // The parent's copy listens: the connection waits for a neighbour.
    let waiting = TcpStream::connect(worker.addr).await.unwrap();
    let mut response = String::new();
    let mut reader = BufReader::new(open.into_std().unwrap());
    reader.get_ref().set_nonblocking(false).unwrap();
    tokio::task::spawn_blocking(move || {
        reader.read_line(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    })
    .await
    .unwrap();
    assert_eq!(worker.ended().await, Some(0), "{}", worker.stderr());
    let neighbour = TcpListener::from(worker.socket.try_clone().unwrap());
    neighbour.set_nonblocking(false).unwrap();
    let accepted = tokio::task::spawn_blocking(move || neighbour.accept()).await.unwrap().unwrap();
    assert_eq!(accepted.1, waiting.local_addr().unwrap());
}

#[tokio::test]
async fn only_its_parent_cuts_a_worker() {
    let mut worker = Worker::spawn(&[]);
    worker.ready().await;
    let _socket = long_call(worker.addr).await;
    let lines = |text: &'static str, times| {
        let worker = &worker;
        async move || worker.stderr().matches(text).count() == times
    };
    for (signal, name) in [(Signal::USR2, "USR2 is for the parent"), (Signal::TTIN, "SIGTTIN"), (Signal::HUP, "")] {
        worker.signal(signal);
        if !name.is_empty() {
            until("the signal is logged", SOON, lines(name, 1)).await;
        }
    }
    assert!(worker.stderr().contains(&format!("parent={}", std::process::id())), "{}", worker.stderr());
    worker.signal(Signal::INT);
    until("it stops", SOON, lines("requested by a signal", 1)).await;
    sleep(Duration::from_millis(1200)).await; // a node would be cut by an INT from now on
    worker.signal(Signal::INT);
    until("it reads the second INT", SOON, lines("requested by a signal", 2)).await;
    assert_eq!(get(worker.admin, "/readyz").await.status, 503);
    let begin = Instant::now();
    worker.link().send(ParentMessage::Cut).unwrap();
    assert_eq!(worker.ended().await, Some(1), "{}", worker.stderr());
    check_time("a cut to the end", begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn a_worker_ends_soon_after_its_parent() {
    let mut idle = Worker::spawn(&[]);
    let mut busy = Worker::spawn(&[]);
    idle.ready().await;
    busy.ready().await;
    let _socket = long_call(busy.addr).await;
    for worker in [&mut idle, &mut busy] {
        worker.link = None;
    }
    let begin = Instant::now();
    assert_eq!(idle.ended().await, Some(0), "{}", idle.stderr());
    assert_ne!(busy.ended().await, Some(0), "{}", busy.stderr());
    check_time("the end of the parent to that of a worker with a long call", begin.elapsed(), Duration::from_secs(4));
    assert!(busy.stderr().contains("the parent process is gone"), "{}", busy.stderr());
}

#[tokio::test]
async fn a_worker_that_cannot_serve_tells_its_parent_why() {
    type Case<'a> = (&'a [(&'a str, &'a str)], fn(&mut Handover), &'a str);
    let cases: [Case<'_>; 4] = [
        (&[("PHALANX__WEB__PROT", "1")], |_| {}, "there is no setting web.prot"),
        (&[], |handover| drop(handover.take(Handover::WEB)), "no socket for clients"),
        (&[], |handover| handover.roles.push("cook".to_owned()), "\"cook\" is no role"),
        (&[], |handover| handover.protocol = PROTOCOL + 1, "the running parent is 0.3.1: restart it"),
    ];
    for (environment, change, expected) in cases {
        let mut worker = Worker::spawn_with(environment, change);
        let WorkerMessage::Failed { reason } = worker.message().await else { panic!("{}", worker.stderr()) };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(worker.ended().await, Some(1));
        assert!(worker.stderr().contains(expected), "{}", worker.stderr());
    }
}

#[tokio::test]
async fn the_hidden_option_of_a_worker_is_refused_on_a_command_line() {
    let refused = run("tour", &["start", "--supervised"], &[]).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    let expected = "error: --supervised is for the workers of `start cluster` alone: start a node without it\n";
    assert_eq!((refused.status.code(), text.as_str()), (Some(2), expected));
}

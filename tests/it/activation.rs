//! Sockets that the service manager has bound.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use phalanx_testkit::{Process, Signal, binary, command};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::get;

const SOON: Duration = Duration::from_secs(30);

/// Binds sockets as `SOCKETS` says, writes their ports to the file `ports`, and executes `tour` as systemd does. Another
/// process keeps them for as long as that file is there.
const MANAGER: &str = r#"#!/usr/bin/env python3
import fcntl, os, shlex, socket, time
sockets = [entry.split("=") for entry in os.environ["SOCKETS"].split()]
held, ports = [], []
for name, kind in sockets:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    if kind == "tcp":
        bound.listen(128)
    ports.append(str(bound.getsockname()[1]))
    held.append(fcntl.fcntl(bound.fileno(), fcntl.F_DUPFD, 100))
    bound.detach()
open("ports", "w").write(" ".join(ports))
if os.fork() == 0:
    os.closerange(0, 3)
    while os.path.exists(os.path.abspath("ports")):
        time.sleep(0.02)
    os._exit(0)
for number, fd in enumerate(held):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(held))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in sockets)
os.execv(os.environ["TOUR"], ["tour", *shlex.split(os.environ.get("ARGUMENTS", ""))])
"#;

/// A folder with the program above, and its path.
fn manager() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager");
    std::fs::write(&path, MANAGER).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder, path)
}

fn ports(node: &Process) -> Vec<u16> {
    let ports = std::fs::read_to_string(node.folder().join("ports")).unwrap();
    ports.split_whitespace().map(|port| port.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_node_and_a_parent_of_workers_take_the_sockets_of_the_service_manager() {
    let (_folder, path) = manager();
    let tour = binary("tour");
    for arguments in ["start", "start cluster --workers 1"] {
        let environment = [
            ("TOUR", tour.to_str().unwrap()),
            ("SOCKETS", "web=tcp admin=tcp"),
            ("ARGUMENTS", arguments),
            // Others than the sockets: those that were given win.
            ("PORT", "1"),
            ("PHALANX__ADMIN__BIND", "127.0.0.1:1"),
        ];
        let mut node = Process::start(path.to_str().unwrap(), &environment).await;
        assert_eq!(ports(&node), [node.addr.port(), node.admin.port()], "{arguments}");
        assert_eq!(get(node.addr, "/api/randomNumber").await.status, 200, "{arguments}");
        assert_eq!(get(node.admin, "/readyz").await.status, 200, "{arguments}");
        if arguments == "start" {
            let given = (node.addr, node.admin);
            node.signal(Signal::USR2);
            node.ready().await;
            assert_eq!((node.addr, node.admin), given, "they win after a restart in place too");
        }
        node.signal(Signal::TERM);
        assert!(node.ended().await.success(), "{arguments}: {}", node.stderr());
        for addr in [node.addr, node.admin] {
            let waiting = timeout(SOON, TcpStream::connect(addr)).await.unwrap();
            assert!(waiting.is_ok(), "{arguments}: clients wait for the next start: {waiting:?}");
        }
    }
}

/// The listener for operators listens before anything else has started.
#[tokio::test]
async fn the_sockets_of_the_service_manager_outlive_a_start_that_fails() {
    let (_folder, path) = manager();
    let tour = binary("tour");
    let environment = [
        ("TOUR", tour.to_str().unwrap()),
        ("SOCKETS", "web=tcp admin=tcp"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("PHALANX__REDIS__BOOT_TIMEOUT", "500ms"),
    ];
    let mut node = Process::spawn_with(path.to_str().unwrap(), &[], &environment);
    assert_eq!(node.ended().await.code(), Some(1), "{}", node.stderr());
    for port in ports(&node) {
        let waiting = timeout(SOON, TcpStream::connect(("127.0.0.1", port))).await.unwrap();
        assert!(waiting.is_ok(), "{waiting:?}: {}", node.stderr());
    }
}

async fn refused(path: &std::path::Path, sockets: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = command(path.to_str().unwrap(), folder.path());
    manager.env("TOUR", binary("tour")).env("SOCKETS", sockets).kill_on_drop(true);
    timeout(SOON, manager.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn sockets_without_a_use_are_refused_by_their_numbers() {
    let (_folder, path) = manager();
    for (sockets, reason) in [
        ("web=udp", "descriptor 3, \"web\": it is no stream"),
        ("web=tcp admin=bound", "descriptor 4, \"admin\": it does not listen"),
        ("web=tcp metrics=tcp", "descriptor 4, \"metrics\": sockets are named web and admin"),
        ("web=tcp web=tcp", "descriptor 4, \"web\": there is another one"),
        ("app.socket=tcp other.socket=tcp", "descriptor 4, \"other.socket\": there is another one"),
    ] {
        let output = refused(&path, sockets).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{sockets}: {stderr}");
        assert!(stderr.starts_with("error: LISTEN_FDS: ") && stderr.contains(reason), "{sockets}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{sockets}: {stderr}");
    }
}

#[tokio::test]
async fn variables_for_another_process_mean_nothing() {
    let node = Process::start("tour", &[("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")]).await;
    assert_eq!(get(node.addr, "/api/randomNumber").await.status, 200);
}

#[tokio::test]
async fn the_service_manager_is_notified_of_readiness_restarts_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let socket = std::sync::Arc::new(socket);
    let next = async || {
        let socket = socket.clone();
        let receive = move || {
            let mut text = [0; 100];
            let bytes = socket.recv(&mut text).unwrap();
            String::from_utf8(text[..bytes].to_vec()).unwrap()
        };
        tokio::task::spawn_blocking(receive).await.unwrap()
    };
    let mut node = Process::start("tour", &[("NOTIFY_SOCKET", path.to_str().unwrap())]).await;
    assert_eq!(next().await, "READY=1");
    node.signal(Signal::USR2);
    let reloading = next().await;
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    assert!(time.parse::<u64>().unwrap() > 0);
    node.ready().await;
    assert_eq!(next().await, "READY=1");
    node.signal(Signal::TERM);
    assert_eq!(next().await, "STOPPING=1");
    assert!(node.ended().await.success(), "{}", node.stderr());
}

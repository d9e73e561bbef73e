//! Sockets that systemd has bound for this process (socket activation).
//!
//! Descriptors from 3 on are ours if `LISTEN_PID` is. They are replaced by duplicates that no child of the application
//! inherits; the variables stay, and mean nothing to a process with another id.

use std::net::TcpListener;
use std::os::fd::{OwnedFd, RawFd};

use nix::unistd::close;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::Sockets;

/// The first descriptor.
const FIRST: RawFd = 3;

/// Most sockets that are looked at: more than two are refused.
const MAX: usize = 16;

/// Takes the sockets for clients and for operators. To be called before threads and children are started.
///
/// # Errors
///
/// A socket that a node has no use for, by its number and its name.
pub(super) fn take() -> Result<Sockets, String> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(Sockets::default());
    }
    let count = variable("LISTEN_FDS");
    let count: usize = count.parse().map_err(|_| format!("LISTEN_FDS={count:?} is no number"))?;
    if count > MAX {
        return Err(format!("LISTEN_FDS={count}: a node has one socket for clients and one for operators"));
    }
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut sockets = Sockets::default();
    let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| format!("LISTEN_FDS: {error}"))?;
    for fd in (FIRST..).take(count) {
        let name = names.next().unwrap_or_default();
        let socket = pidfd_getfd(&own, fd, PidfdGetfdFlags::empty());
        let socket = socket.map_err(|error| format!("LISTEN_FDS: descriptor {fd}: {error}"))?;
        let _ = close(fd); // the duplicate is closed on exec
        give(&mut sockets, name, socket)
            .map_err(|reason| format!("LISTEN_FDS: descriptor {fd}, {name:?}: {reason}"))?;
    }
    Ok(sockets)
}

/// Gives a socket its use, by its name. systemd names sockets without a name after their unit: the first of those is for
/// clients.
fn give(sockets: &mut Sockets, name: &str, socket: OwnedFd) -> Result<(), String> {
    let is_unnamed = name.is_empty() || name == "unknown" || name.ends_with(".socket");
    let place = match name {
        "admin" => &mut sockets.admin,
        "web" => &mut sockets.web,
        _ if is_unnamed => &mut sockets.web,
        _ => return Err("sockets are named web and admin, by FileDescriptorName=".to_owned()),
    };
    if place.is_some() {
        return Err("there is another one for the same use".to_owned());
    }
    check(&socket)?;
    *place = Some(TcpListener::from(socket));
    Ok(())
}

/// Checks that it listens for TCP.
fn check(socket: &OwnedFd) -> Result<(), String> {
    let family = socket_domain(socket).map_err(|error| format!("it is no socket: {error}"))?;
    if ![AddressFamily::INET, AddressFamily::INET6].contains(&family) {
        return Err("it is no socket of IPv4 or IPv6".to_owned());
    }
    match (socket_type(socket), socket_acceptconn(socket)) {
        (Ok(SocketType::STREAM), Ok(true)) => Ok(()),
        (Ok(SocketType::STREAM), _) => Err("it does not listen".to_owned()),
        _ => Err("it is no stream: a node needs ListenStream=".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn sockets_are_given_by_their_names() {
        for (names, web, admin) in [
            (&["web"][..], true, false),
            (&["admin", "web"], true, true),
            (&["app.socket"], true, false),
            (&["", "admin"], true, true),
            (&[], false, false),
        ] {
            let mut sockets = Sockets::default();
            for name in names {
                give(&mut sockets, name, tcp()).unwrap();
            }
            assert_eq!((sockets.web.is_some(), sockets.admin.is_some()), (web, admin), "{names:?}");
        }
    }

    #[test]
    fn other_sockets_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str, socket: OwnedFd| {
            let mut sockets = Sockets { web: Some(tcp().into()), ..Sockets::default() };
            give(&mut sockets, name, socket).unwrap_err()
        };
        assert!(refused("web", tcp()).contains("another one"));
        assert!(refused("app.socket", tcp()).contains("another one"));
        assert!(refused("metrics", tcp()).contains("named web and admin"));
        assert!(refused("admin", UdpSocket::bind("127.0.0.1:0").unwrap().into()).contains("ListenStream="));
        assert!(refused("admin", UnixListener::bind(folder.path().join("s")).unwrap().into()).contains("IPv4"));
        assert!(refused("admin", std::fs::File::open("/dev/null").unwrap().into()).contains("no socket"));
    }
}

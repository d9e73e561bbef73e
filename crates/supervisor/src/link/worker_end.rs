//! The worker's end of the link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_domain, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use serde::Deserialize;

use super::packet::{self, Packet};
use super::{Handover, LinkError, PROTOCOL, ParentMessage, WorkerMessage};

/// The longest wait for the handover, which the parent sends before it starts the worker.
const HANDOVER: Duration = Duration::from_secs(5);

/// The worker's end of the link. Sending and receiving need no runtime, and may run in two threads at a time.
#[derive(Debug)]
pub struct WorkerLink {
    socket: OwnedFd,
}

impl WorkerLink {
    /// Takes the link from stdin, which becomes `/dev/null`, and receives the handover. `None` if stdin is no link.
    ///
    /// # Errors
    ///
    /// [`LinkError::Protocol`] if the parent speaks another version of the protocol, which it is notified of; the
    /// others if no handover is on the link.
    pub fn take_stdin() -> Result<Option<(Self, Handover)>, LinkError> {
        let stdin = rustix::stdio::stdin();
        if !is_link(stdin) {
            return Ok(None);
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).map_err(io::Error::from)?;
        let null =
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
        rustix::stdio::dup2_stdin(null).map_err(io::Error::from)?;
        Self::of(socket).map(Some)
    }

    /// Receives the handover.
    pub(super) fn of(socket: OwnedFd) -> Result<(Self, Handover), LinkError> {
        let link = Self { socket };
        let received = link.receive_handover();
        if let Err(error @ LinkError::Protocol { .. }) = &received {
            let _ = link.send(&WorkerMessage::failed(&error.to_string())); // if it is gone, there is none to notify
        }
        Ok((link, received?))
    }

    fn receive_handover(&self) -> Result<Handover, LinkError> {
        /// The fields that all versions of the protocol share.
        #[derive(Deserialize)]
        struct Versions {
            protocol: u32,
            version: String,
        }

        let set_timeout = |timeout| set_socket_timeout(&self.socket, Timeout::Recv, timeout).map_err(io::Error::from);
        set_timeout(Some(HANDOVER))?;
        let Packet { line, fds } =
            packet::receive(self.socket.as_fd(), RecvFlags::empty())?.ok_or(LinkError::NoHandover)?;
        set_timeout(None)?;
        let parent: Versions = serde_json::from_slice(&line)?;
        if parent.protocol != PROTOCOL {
            return Err(LinkError::Protocol { parent: parent.version });
        }
        let mut handover: Handover = serde_json::from_slice(&line)?;
        if handover.names().len() != fds.len() {
            return Err(LinkError::Sockets { named: handover.names().len(), received: fds.len() });
        }
        handover.set_sockets(fds);
        Ok(handover)
    }

    /// Sends a message. Waits while the parent has not read what was sent before.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the parent is gone.
    pub fn send(&self, message: &WorkerMessage) -> Result<(), LinkError> {
        packet::send(self.socket.as_fd(), message, &[], SendFlags::empty())
    }

    /// Sends a message without waiting. Returns whether the link had room for it: a beat that has none is left out,
    /// since the parent has not read those before it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the parent is gone.
    pub fn try_send(&self, message: &WorkerMessage) -> Result<bool, LinkError> {
        match packet::send(self.socket.as_fd(), message, &[], SendFlags::DONTWAIT) {
            Ok(()) => Ok(true),
            Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for a message; `None` once the parent is gone.
    ///
    /// # Errors
    ///
    /// [`LinkError::Malformed`] if it is none of this protocol: the link can be read on.
    pub fn receive(&self) -> Result<Option<ParentMessage>, LinkError> {
        match packet::receive(self.socket.as_fd(), RecvFlags::empty())? {
            Some(packet) => Ok(Some(serde_json::from_slice(&packet.line)?)),
            None => Ok(None),
        }
    }
}

/// Whether a descriptor is a socket of the kind that the parent makes.
fn is_link(fd: BorrowedFd<'_>) -> bool {
    let kind = || Ok::<_, Errno>((socket_domain(fd)?, socket_type(fd)?));
    kind() == Ok((AddressFamily::UNIX, SocketType::SEQPACKET))
}

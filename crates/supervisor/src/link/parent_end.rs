//! The parent's end of the link. It never waits for the worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, socketpair};

use super::{Handover, LinkError, ParentMessage, WorkerMessage, packet};

/// The parent's end of the link to one worker.
#[derive(Debug)]
pub struct ParentLink {
    socket: OwnedFd,
}

/// The result of looking for a message of the worker.
#[derive(Debug, PartialEq, Eq)]
pub enum Reception {
    /// A message.
    Message(WorkerMessage),
    /// Nothing is there yet.
    Empty,
    /// The worker has closed its end.
    Closed,
}

impl ParentLink {
    /// Makes a link that holds a handover already. The returned descriptor is to be the worker's stdin.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the process has no descriptors left; [`LinkError::Sockets`] if there are more than
    /// [`MAX_SOCKETS`](super::MAX_SOCKETS).
    pub fn with_handover(handover: &Handover) -> Result<(Self, OwnedFd), LinkError> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, stdin) = pair.map_err(io::Error::from)?;
        packet::send(socket.as_fd(), handover, handover.sockets(), SendFlags::DONTWAIT)?;
        Ok((Self { socket }, stdin))
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the worker is gone, or does not read its end.
    pub fn send(&self, message: ParentMessage) -> Result<(), LinkError> {
        packet::send(self.socket.as_fd(), &message, &[], SendFlags::DONTWAIT)
    }

    /// Ends the link: the worker takes that for the end of its parent, and stops.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both); // it fails if the worker has closed it already
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    ///
    /// [`LinkError::Malformed`] or [`LinkError::TooLong`] if it is none of this protocol: the link can be read on.
    pub fn receive(&self) -> Result<Reception, LinkError> {
        match packet::receive(self.socket.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some(packet)) => Ok(Reception::Message(serde_json::from_slice(&packet.line)?)),
            Ok(None) => Ok(Reception::Closed),
            Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(Reception::Empty),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for ParentLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::{PROTOCOL, WorkerLink};
    use super::*;

    fn handover() -> Handover {
        Handover::new("0.3.1", "phalanx-worker-1", &["web".to_owned()], 2)
    }

    #[test]
    fn sockets_are_handed_over_and_serve() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut sent = handover();
        sent.add(Handover::WEB, listener.into());
        let (parent, stdin) = ParentLink::with_handover(&sent).unwrap();
        drop(sent);
        let (worker, mut received) = WorkerLink::of(stdin).unwrap();
        assert_eq!((received.id.as_str(), received.names()), ("phalanx-worker-1", &["web".to_owned()][..]));
        let taken = TcpListener::from(received.take(Handover::WEB).unwrap());
        let _client = TcpStream::connect(addr).unwrap();
        taken.accept().unwrap();
        worker.send(&WorkerMessage::failed("no")).unwrap();
        assert_eq!(parent.receive().unwrap(), Reception::Message(WorkerMessage::failed("no")));
        assert_eq!(parent.receive().unwrap(), Reception::Empty);
        parent.send(ParentMessage::Cut).unwrap();
        assert_eq!(worker.receive().unwrap(), Some(ParentMessage::Cut));
        drop(worker);
        assert_eq!(parent.receive().unwrap(), Reception::Closed);
        let broken = parent.send(ParentMessage::Cut).unwrap_err();
        assert!(matches!(&broken, LinkError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe), "{broken}");
    }

    #[test]
    fn the_death_of_the_parent_ends_the_worker_s_wait() {
        let (parent, stdin) = ParentLink::with_handover(&handover()).unwrap();
        let (worker, _) = WorkerLink::of(stdin).unwrap();
        worker.send(&WorkerMessage::Beat { connections: 1, sockets: 0 }).unwrap(); // unread by the parent
        let waiting = std::thread::spawn(move || worker.receive().unwrap());
        drop(parent);
        assert_eq!(waiting.join().unwrap(), None);
    }

    #[test]
    fn another_version_of_the_protocol_is_refused_in_both_directions() {
        let mut newer = handover();
        newer.protocol = PROTOCOL + 1;
        let (parent, stdin) = ParentLink::with_handover(&newer).unwrap();
        let refused = WorkerLink::of(stdin).unwrap_err().to_string();
        assert_eq!(refused, "the running parent is 0.3.1: restart it");
        assert_eq!(parent.receive().unwrap(), Reception::Message(WorkerMessage::failed(&refused)));
    }

    #[test]
    fn empty_malformed_and_overlong_packets_are_errors_and_the_next_one_is_read() {
        let (parent, stdin) = ParentLink::with_handover(&handover()).unwrap();
        let send = |bytes: &[u8]| rustix::net::send(&stdin, bytes, SendFlags::empty()).unwrap();
        send(b"");
        send(b"{\"message\":\"dance\"}");
        send(&[b' '; super::super::MAX_MESSAGE + 1]);
        send(b"{\"message\":\"beat\",\"connections\":2,\"sockets\":1}");
        assert!(matches!(parent.receive(), Err(LinkError::Malformed(_))), "an empty packet is not the end");
        assert!(matches!(parent.receive(), Err(LinkError::Malformed(_))));
        assert!(matches!(parent.receive(), Err(LinkError::TooLong)));
        let beat = WorkerMessage::Beat { connections: 2, sockets: 1 };
        assert_eq!(parent.receive().unwrap(), Reception::Message(beat));
    }

    #[test]
    fn neither_end_waits_for_one_that_does_not_read() {
        let (parent, stdin) = ParentLink::with_handover(&handover()).unwrap();
        let (worker, _) = WorkerLink::of(stdin).unwrap();
        let beat = WorkerMessage::Beat { connections: 0, sockets: 0 };
        while worker.try_send(&beat).unwrap() {}
        while parent.send(ParentMessage::Stop { with_all: false }).is_ok() {}
    }

    #[test]
    fn a_handover_of_too_many_sockets_is_refused() {
        let mut sent = handover();
        for _ in 0..=super::super::MAX_SOCKETS {
            sent.add(Handover::WEB, std::fs::File::open("/dev/null").unwrap().into());
        }
        assert!(matches!(ParentLink::with_handover(&sent), Err(LinkError::Sockets { .. })));
    }
}

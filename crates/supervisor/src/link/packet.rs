//! One packet with JSON, sent or received.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;

use super::{LinkError, MAX_MESSAGE, MAX_SOCKETS};
use crate::hung_up::is_hung_up;

const FDS_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_SOCKETS));

/// Sends a message as one packet.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[OwnedFd],
    flags: SendFlags,
) -> Result<(), LinkError> {
    let line = serde_json::to_vec(message)?;
    if line.len() > MAX_MESSAGE {
        return Err(LinkError::TooLong);
    }
    if fds.len() > MAX_SOCKETS {
        return Err(LinkError::Sockets { named: fds.len(), received: MAX_SOCKETS });
    }
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); FDS_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds)); // the space is that of MAX_SOCKETS
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&line)], &mut control, flags | SendFlags::NOSIGNAL))
        .map_err(io::Error::from)?;
    Ok(())
}

/// A received packet.
pub(super) struct Packet {
    pub(super) line: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Receives a packet; `None` once the other end is closed.
pub(super) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<Packet>, LinkError> {
    let mut line = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); FDS_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut line)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        // The other end closed with packets unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = fds.flatten().collect();
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(LinkError::TooLong);
    }
    // An empty packet looks like the end of the stream, and is none of the protocol.
    if received.bytes == 0 && is_hung_up(&socket) {
        return Ok(None);
    }
    line.truncate(received.bytes);
    Ok(Some(Packet { line, fds }))
}

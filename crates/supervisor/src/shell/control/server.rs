//! The parent's side, which waits for no client.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use tracing::warn;

use super::{ControlReply, ControlRequest, MAX_CLIENTS, MAX_COMMANDS, MAX_OUTPUT, MAX_PATH, MAX_REQUEST, SOON};
use crate::hung_up::is_hung_up;
use crate::shell::accept::{AcceptGate, write_some};

/// The control socket and its clients.
#[derive(Debug)]
pub(in crate::shell) struct ControlServer {
    /// The socket and its path, if there is one.
    listener: Option<(UnixListener, PathBuf)>,
    clients: Vec<ControlPeer>,
    accepts: AcceptGate,
    /// How many commands could not wait for the workers.
    pub(in crate::shell) beyond: u64,
}

/// A client.
#[derive(Debug)]
struct ControlPeer {
    stream: UnixStream,
    /// By when it has sent its request, or read the whole reply.
    until: Duration,
    input: Vec<u8>,
    /// Whether nothing more comes from it: it may read on.
    has_sent_all: bool,
    output: Vec<u8>,
    wait: ControlWait,
}

/// The event that ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shell) enum ControlWait {
    /// The request itself.
    Request,
    /// The end of that roll.
    Roll(u64),
    /// As many workers as requested, all ready.
    Settled,
    /// The end of the parent.
    Stop,
    /// Nothing: the reply is complete.
    Nothing,
}

impl ControlWait {
    /// Whether the request ends by an event of the workers.
    fn is_for_workers(self) -> bool {
        matches!(self, Self::Roll(_) | Self::Settled | Self::Stop)
    }
}

impl ControlServer {
    /// Listens at a path. The caller holds a lock that no other parent has, so a file that is there is left over.
    pub(in crate::shell) fn listen(path: Option<PathBuf>) -> io::Result<Self> {
        let named = |path: &Path, error: &io::Error| format!("the control socket {}: {error}", path.display());
        let listener = path.map(|path| match bind(&path) {
            Ok(listener) => Ok((listener, path)),
            Err(error) => Err(io::Error::new(error.kind(), named(&path, &error))),
        });
        Ok(Self { listener: listener.transpose()?, clients: Vec::new(), accepts: AcceptGate::default(), beyond: 0 })
    }

    /// The descriptors to wait for.
    pub(in crate::shell) fn interests(&self, now: Duration) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let accepts = self.has_place() && self.accepts.is_open(now);
        let clients = self.clients.iter().map(|client| {
            let read = if client.has_sent_all { PollFlags::empty() } else { PollFlags::IN };
            let write = if client.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            (client.stream.as_fd(), read | write)
        });
        let listener = self.listener.iter().filter(move |_| accepts);
        listener.map(|(listener, _)| (listener.as_fd(), PollFlags::IN)).chain(clients)
    }

    /// Accepts clients, and reads and writes what is possible. Returns the requests that came, by the index of their
    /// client, which is valid until the next call.
    pub(in crate::shell) fn serve(&mut self, now: Duration) -> Vec<(usize, ControlRequest)> {
        self.clients.retain_mut(|client| client.is_alive(now));
        while self.has_place()
            && let Some((listener, _)) = &self.listener
            && let Some((stream, _)) = self.accepts.next(now, "control", || listener.accept())
        {
            self.clients.extend(ControlPeer::of(stream, now));
        }
        let clients = self.clients.iter_mut().enumerate();
        clients.filter_map(|(index, client)| Some((index, client.request(now)?))).collect()
    }

    /// Whether another client can be accepted. Those that wait for workers do not count: a roll may take long, and `status`
    /// and `stop` must reach the parent meanwhile.
    fn has_place(&self) -> bool {
        self.clients.len() - self.waiting() < MAX_CLIENTS
    }

    /// How many clients wait for workers.
    pub(in crate::shell) fn waiting(&self) -> usize {
        self.clients.iter().filter(|client| client.wait.is_for_workers()).count()
    }

    /// Sets the event of the workers that ends a client's request; `false` if as many clients wait for one as may.
    #[must_use = "the client waits for nothing else"]
    pub(in crate::shell) fn wait_for(&mut self, client: usize, wait: ControlWait) -> bool {
        let is_free = self.waiting() < MAX_COMMANDS;
        if is_free {
            self.clients[client].wait = wait;
        } else {
            self.beyond += 1;
        }
        is_free
    }

    /// Sends the end of a reply.
    pub(in crate::shell) fn end(&mut self, client: usize, reply: &ControlReply) {
        self.clients[client].end(reply);
    }

    /// Sends a line to all that wait for an event of the workers.
    pub(in crate::shell) fn report(&mut self, text: &str) {
        for client in self.clients.iter_mut().filter(|client| client.wait.is_for_workers()) {
            client.push(&ControlReply::Progress { text: text.to_owned() });
        }
    }

    /// Sends the end of the reply to all that wait for this event.
    pub(in crate::shell) fn end_all(&mut self, wait: ControlWait, reply: &ControlReply) {
        for client in self.clients.iter_mut().filter(|client| client.wait == wait) {
            client.end(reply);
        }
    }

    /// Whether a client waits for this event.
    pub(in crate::shell) fn is_awaited(&self, wait: ControlWait) -> bool {
        self.clients.iter().any(|client| client.wait == wait)
    }
}

/// Listens at a path; only the user of this process can connect.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > MAX_PATH {
        let error = format!("a path of more than {MAX_PATH} bytes: set paths.pid to a shorter folder");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.listener {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl ControlPeer {
    /// Takes a client on, unless it is of another user.
    fn of(stream: UnixStream, now: Duration) -> Option<Self> {
        let peer = socket_peercred(&stream).ok()?.uid;
        if peer != geteuid() && !peer.is_root() {
            warn!(uid = peer.as_raw(), "a client of another user was refused at the control socket");
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        let (until, wait) = (now + SOON, ControlWait::Request);
        Some(Self { stream, until, input: Vec::new(), has_sent_all: false, output: Vec::new(), wait })
    }

    /// Reads what is there and writes what waits; `false` once the client is gone, served, or too slow.
    fn is_alive(&mut self, now: Duration) -> bool {
        let mut bytes = [0; MAX_REQUEST];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.has_sent_all = true,
            Ok(length) if self.input.len() + length > MAX_REQUEST => return false,
            Ok(length) => self.input.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        self.flush();
        if self.wait.is_for_workers() {
            self.until = now + SOON;
        }
        let is_complete = self.wait != ControlWait::Request || self.input.contains(&b'\n');
        let is_gone = self.has_sent_all && (!is_complete || is_hung_up(&self.stream));
        let is_served = self.wait == ControlWait::Nothing && self.output.is_empty();
        !is_gone && !is_served && now <= self.until && self.output.len() <= MAX_OUTPUT
    }

    /// The request, once its line is complete.
    fn request(&mut self, now: Duration) -> Option<ControlRequest> {
        if self.wait != ControlWait::Request {
            return None;
        }
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        let request = serde_json::from_slice(&self.input[..end]);
        (self.wait, self.until) = (ControlWait::Nothing, now + SOON);
        self.input.clear();
        match request {
            Ok(request) => Some(request),
            Err(error) => {
                self.end(&ControlReply::Failed { reason: format!("the parent does not know this request: {error}") });
                None
            }
        }
    }

    fn end(&mut self, reply: &ControlReply) {
        self.push(reply);
        self.wait = ControlWait::Nothing;
    }

    fn push(&mut self, reply: &ControlReply) {
        if let Ok(line) = serde_json::to_vec(reply) {
            self.output.extend(line);
            self.output.push(b'\n');
        }
        self.flush();
    }

    fn flush(&mut self) {
        let _ = write_some(&mut self.stream, &mut self.output); // that it is gone, the next read says
    }
}

#[cfg(test)]
mod tests;

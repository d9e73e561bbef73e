//! The parent's listener for operators: `/livez`, `/readyz` and `/metrics`, by a few lines of HTTP/1.0.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

/// The most clients at a time; the next ones wait.
const MAX_CLIENTS: usize = 16;

/// The longest head of a request.
const MAX_HEAD: usize = 8 * 1024;

/// The time for a client to send its request and to read the response.
const SOON: Duration = Duration::from_secs(5);

/// The listener and its clients.
#[derive(Debug)]
pub(super) struct AdminListener {
    listener: TcpListener,
    pub(super) addr: SocketAddr,
    clients: Vec<AdminClient>,
    accepts_from: Duration,
}

/// A client.
#[derive(Debug)]
struct AdminClient {
    stream: TcpStream,
    since: Duration,
    input: Vec<u8>,
    output: Vec<u8>,
    is_answered: bool,
}

/// A status and a text.
pub(super) struct AdminResponse {
    pub(super) status: &'static str,
    pub(super) text: String,
}

impl AdminListener {
    pub(super) fn of(listener: TcpListener) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr, clients: Vec::new(), accepts_from: Duration::ZERO })
    }

    /// The descriptors to wait for.
    pub(super) fn interests(&self, now: Duration) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let accepts = self.clients.len() < MAX_CLIENTS && now >= self.accepts_from;
        let clients = self.clients.iter().map(|client| {
            (client.stream.as_fd(), if client.output.is_empty() { PollFlags::IN } else { PollFlags::OUT })
        });
        accepts.then(|| (self.listener.as_fd(), PollFlags::IN)).into_iter().chain(clients)
    }

    /// Accepts clients, and answers the requests that are complete.
    pub(super) fn serve(&mut self, now: Duration, answer: impl Fn(&str) -> AdminResponse) {
        while self.clients.len() < MAX_CLIENTS && now >= self.accepts_from {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let (input, output) = (Vec::new(), Vec::new());
                    self.clients.push(AdminClient { stream, since: now, input, output, is_answered: false });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => self.accepts_from = now + Duration::from_secs(1),
            }
        }
        self.clients.retain_mut(|client| now <= client.since + SOON && client.serve(&answer));
    }
}

impl AdminClient {
    /// Reads and writes what is possible; `false` once it is served or gone.
    fn serve(&mut self, answer: &impl Fn(&str) -> AdminResponse) -> bool {
        let mut bytes = [0; 1024];
        for _ in 0..MAX_HEAD / 1024 {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(_) if self.is_answered => {} // read all the same, so that the client is not reset
                Ok(length) => self.input.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            if self.input.len() > MAX_HEAD {
                return false;
            }
        }
        if !self.is_answered && self.input.windows(4).any(|window| window == b"\r\n\r\n") {
            let AdminResponse { status, text } = answer(&self.path());
            let head = "content-type: text/plain; version=0.0.4; charset=utf-8\r\nconnection: close\r\n";
            self.output = format!("HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n{text}", text.len()).into();
            self.is_answered = true;
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) if written > 0 => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
            if self.output.is_empty() {
                return self.stream.shutdown(Shutdown::Write).is_ok();
            }
        }
        true
    }

    /// The path of a request that only reads; empty for others.
    fn path(&self) -> String {
        let line = self.input.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let path = (words.next() == Some("GET")).then(|| words.next()).flatten().unwrap_or_default();
        path.split('?').next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_and_the_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut admin = AdminListener::of(listener).unwrap();
        let answer = |path: &str| AdminResponse { status: "200 OK", text: format!("[{path}]") };
        let check = |admin: &mut AdminListener, request: &str, expected: &str| {
            let mut client = TcpStream::connect(admin.addr).unwrap();
            let (first, second) = request.split_at(3);
            client.write_all(first.as_bytes()).unwrap();
            admin.serve(Duration::ZERO, answer);
            client.write_all(second.as_bytes()).unwrap();
            let mut response = String::new();
            let reading = std::thread::spawn(move || client.read_to_string(&mut response).map(|_| response).unwrap());
            while !reading.is_finished() {
                admin.serve(Duration::ZERO, answer);
            }
            let response = reading.join().unwrap();
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with(expected), "{response}");
        };
        check(&mut admin, "GET /readyz?x HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n[/readyz]");
        check(&mut admin, "POST /readyz HTTP/1.1\r\n\r\n", "\r\n\r\n[]");
        while !admin.clients.is_empty() {
            admin.serve(Duration::ZERO, answer);
        }
        let _silent = TcpStream::connect(admin.addr).unwrap();
        while admin.clients.is_empty() {
            admin.serve(Duration::ZERO, answer);
        }
        admin.serve(SOON + Duration::from_millis(1), answer);
        assert!(admin.clients.is_empty(), "one that sends nothing is disconnected");
    }
}

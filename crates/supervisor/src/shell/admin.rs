//! The parent's listener for operators: `/livez`, `/readyz` and `/metrics`, by a few lines of HTTP/1.0.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

use super::accept::{AcceptGate, write_some};

/// The most clients at a time. A further one takes the place of the one that is there for longest: clients that are silent keep
/// no probe out.
const MAX_CLIENTS: usize = 16;

/// The most clients that are accepted before the parent does other work.
const MAX_ACCEPTED: usize = 64;

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
    accepts: AcceptGate,
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
        Ok(Self { listener, addr, clients: Vec::new(), accepts: AcceptGate::default() })
    }

    /// The descriptors to wait for.
    pub(super) fn interests(&self, now: Duration) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| {
            (client.stream.as_fd(), if client.output.is_empty() { PollFlags::IN } else { PollFlags::OUT })
        });
        let listener = self.accepts.is_open(now).then(|| (self.listener.as_fd(), PollFlags::IN));
        listener.into_iter().chain(clients)
    }

    /// Accepts clients, and answers the requests that are complete.
    pub(super) fn serve(&mut self, now: Duration, answer: impl Fn(&str) -> AdminResponse) {
        self.clients.retain_mut(|client| now <= client.since + SOON && client.serve(&answer));
        for _ in 0..MAX_ACCEPTED {
            let Some((stream, _)) = self.accepts.next(now, "admin", || self.listener.accept()) else { break };
            let (input, output) = (Vec::new(), Vec::new());
            let mut client = AdminClient { stream, since: now, input, output, is_answered: false };
            if client.stream.set_nonblocking(true).is_ok() && client.serve(&answer) {
                if self.clients.len() >= MAX_CLIENTS {
                    self.clients.remove(0);
                }
                self.clients.push(client);
            }
        }
    }
}

impl AdminClient {
    /// Reads and writes what is possible; `false` once it is served or gone.
    fn serve(&mut self, answer: &impl Fn(&str) -> AdminResponse) -> bool {
        let (mut bytes, mut has_sent_all) = ([0; 1024], false);
        for _ in 0..MAX_HEAD / 1024 {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    has_sent_all = true; // it may read on
                    break;
                }
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
        if self.is_answered && !self.output.is_empty() {
            if write_some(&mut self.stream, &mut self.output).is_err() {
                return false;
            }
            if self.output.is_empty() && self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        !has_sent_all || !self.output.is_empty()
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
    use std::io::Write;

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
        let mut half_closed = TcpStream::connect(admin.addr).unwrap();
        half_closed.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
        half_closed.shutdown(Shutdown::Write).unwrap();
        let reading = std::thread::spawn(move || {
            let mut response = String::new();
            half_closed.read_to_string(&mut response).map(|_| response).unwrap()
        });
        while !reading.is_finished() {
            admin.serve(Duration::ZERO, answer);
        }
        assert!(reading.join().unwrap().ends_with("[/livez]"), "the response of a client that has sent all");
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

    #[test]
    fn silent_clients_keep_no_other_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut admin = AdminListener::of(listener).unwrap();
        let answer = |_: &str| AdminResponse { status: "200 OK", text: "ready".to_owned() };
        let silent: Vec<TcpStream> = (0..2 * MAX_CLIENTS).map(|_| TcpStream::connect(admin.addr).unwrap()).collect();
        while admin.clients.len() < MAX_CLIENTS {
            admin.serve(Duration::ZERO, answer);
        }
        let mut probe = TcpStream::connect(admin.addr).unwrap();
        probe.write_all(b"GET /readyz HTTP/1.1\r\n\r\n").unwrap();
        probe.set_nonblocking(true).unwrap();
        let mut response = [0; 1024];
        let length = loop {
            admin.serve(Duration::ZERO, answer); // no time passes
            match probe.read(&mut response) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                read => break read.unwrap(),
            }
        };
        assert!(response[..length].ends_with(b"ready"));
        assert_eq!(admin.clients.len(), MAX_CLIENTS);
        drop(silent);
    }
}

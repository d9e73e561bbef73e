//! Messages to the service manager (`sd_notify`).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;

/// The service manager, if there is one that wants to know.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    status: String,
}

impl ServiceManager {
    /// The manager in `NOTIFY_SOCKET`.
    pub fn of_process() -> Self {
        Self::at(std::env::var_os("NOTIFY_SOCKET"))
    }

    fn at(name: Option<OsString>) -> Self {
        let socket = name.filter(|name| !name.is_empty()).and_then(|name| {
            let addr = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&addr.ok()?).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        });
        Self { socket, status: String::new() }
    }

    /// The process serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Before what is done on HUP, in a roll or in a restart in place; [`ready`](Self::ready) ends it.
    pub(super) fn reloading(&self, now: Duration) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The same for an operation that begins now.
    pub fn reloading_now(&self) {
        self.reloading(clock::now());
    }

    /// The process stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Shows a line, if it is another one than before.
    pub(super) fn show(&mut self, status: String) {
        if self.status != status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes()); // a manager that does not read delays no worker
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_sent_once_as_long_as_it_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notify = ServiceManager::at(Some(path.into()));
        notify.ready();
        notify.show("1 of 2 workers ready".to_owned());
        notify.show("1 of 2 workers ready".to_owned());
        notify.reloading(Duration::from_millis(3));
        for expected in ["READY=1", "STATUS=1 of 2 workers ready", "RELOADING=1\nMONOTONIC_USEC=3000"] {
            let mut message = [0; 100];
            let length = manager.recv(&mut message).unwrap();
            assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), expected);
        }
        ServiceManager::at(None).ready();
    }
}

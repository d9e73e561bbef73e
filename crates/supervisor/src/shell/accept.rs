//! Clients of the parent's listeners, which it serves without waiting for any of them.

use std::io::{self, Write};
use std::time::Duration;

use tracing::warn;

/// The pause after a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether clients are accepted: not at once after a failure.
#[derive(Debug, Default)]
pub(super) struct AcceptGate {
    opens: Duration,
}

impl AcceptGate {
    pub(super) fn is_open(&self, now: Duration) -> bool {
        now >= self.opens
    }

    /// Accepts the next client of a listener that does not block, if there is one.
    pub(super) fn next<T>(&mut self, now: Duration, name: &str, accept: impl FnOnce() -> io::Result<T>) -> Option<T> {
        if !self.is_open(now) {
            return None;
        }
        match accept() {
            Ok(accepted) => Some(accepted),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                warn!(listener = name, %error, "no client can be accepted");
                self.opens = now + PAUSE;
                None
            }
        }
    }
}

/// Writes as much of the output as goes at once.
///
/// # Errors
///
/// The client is gone.
pub(super) fn write_some(stream: &mut impl Write, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        match stream.write(output) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => drop(output.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! The side of the commands.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{ControlReply, ControlRequest, MAX_OUTPUT, SOON};

/// The longest wait for the next line of a reply: each step of a roll takes less by default.
const NEXT_LINE: Duration = Duration::from_secs(600);

/// A request under way.
#[derive(Debug)]
pub struct ControlClient {
    replies: BufReader<UnixStream>,
}

/// The reason why a request was not replied to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no parent.
    #[error("no parent of workers runs here: {0}")]
    NoParent(io::Error),
    /// The parent does not reply.
    #[error("the parent does not reply: {0}")]
    Silent(io::Error),
    /// It has ended, or closed the connection.
    #[error("the parent has closed the connection")]
    Closed,
    /// Its reply is none of this version.
    #[error("the parent's reply cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl ControlClient {
    /// Sends a request to the parent at a path.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoParent`] if none listens there.
    pub fn send(path: &Path, request: &ControlRequest) -> Result<Self, ControlError> {
        let mut stream = UnixStream::connect(path).map_err(ControlError::NoParent)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let timeouts = stream.set_read_timeout(Some(SOON)).and_then(|()| stream.set_write_timeout(Some(SOON)));
        timeouts.and_then(|()| stream.write_all(&line)).map_err(ControlError::Silent)?;
        Ok(Self { replies: BufReader::new(stream) })
    }

    /// Waits for the next line: 5 s for the first one, 10 minutes for the others.
    ///
    /// # Errors
    ///
    /// [`ControlError::Closed`] if the parent has ended, the others if it does not reply.
    pub fn receive(&mut self) -> Result<ControlReply, ControlError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.replies).take(MAX_OUTPUT as u64);
        limited.read_until(b'\n', &mut line).map_err(ControlError::Silent)?;
        if line.is_empty() {
            return Err(ControlError::Closed);
        }
        self.replies.get_ref().set_read_timeout(Some(NEXT_LINE)).map_err(ControlError::Silent)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

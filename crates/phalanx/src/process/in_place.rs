//! A restart in place: the process executes its program anew, and hands it what must not be closed meanwhile.
//!
//! It goes over a link on stdin, as to a worker of `start cluster`: no child of the process inherits any of it.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;

use phalanx_supervisor::ProgramName;
use phalanx_supervisor::link::{Handover, LinkError, ParentLink, WorkerLink};

use super::pid_file::PidFile;
use super::sockets::Sockets;

/// The hidden option of a program that is executed in place.
pub(crate) const OPTION: &str = "in-place";

const PID_FILE: &str = "pid";
const STDIN: &str = "stdin";

/// The descriptors that one program hands to the next.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    pub(super) sockets: Sockets,
    pub(super) pid_file: Option<PidFile>,
    /// Whether the sockets are those of a service manager, which win over the settings.
    pub(super) is_activated: bool,
}

/// The id in the handover of a node with sockets of a service manager.
const ACTIVATED: &str = "activated";

impl Inheritance {
    /// Takes what the last program has left on stdin, and puts the stdin of that one back. `None` if there is no link.
    pub(super) fn take() -> Result<Option<Self>, LinkError> {
        let Some((_link, mut handover)) = WorkerLink::take_stdin()? else { return Ok(None) };
        if let Some(stdin) = handover.take(STDIN) {
            rustix::stdio::dup2_stdin(stdin).map_err(io::Error::from)?;
        }
        let pid_file = handover.take(PID_FILE).map(File::from).and_then(PidFile::of_open);
        let mut socket = |name| handover.take(name).map(TcpListener::from);
        let sockets = Sockets { web: socket(Handover::WEB), admin: socket(Handover::ADMIN), is_shared: false };
        Ok(Some(Self { sockets, pid_file, is_activated: handover.id == ACTIVATED }))
    }

    /// Puts another descriptor of each on a link, and returns the end that the next program gets.
    fn to_link(&self) -> Result<OwnedFd, LinkError> {
        let stdin = rustix::stdio::stdin();
        let fds = [
            (STDIN, Some(stdin)),
            (PID_FILE, self.pid_file.as_ref().map(AsFd::as_fd)),
            (Handover::WEB, self.sockets.web.as_ref().map(AsFd::as_fd)),
            (Handover::ADMIN, self.sockets.admin.as_ref().map(AsFd::as_fd)),
        ];
        let id = if self.is_activated { ACTIVATED } else { "" };
        let mut handover = Handover::new(env!("CARGO_PKG_VERSION"), id, &[], 0);
        for (name, fd) in fds {
            if let Some(fd) = fd {
                handover.add(name, fd.try_clone_to_owned()?);
            }
        }
        ParentLink::with_handover(&handover).map(|(_link, end)| end)
    }
}

/// Replaces this process by the program that is there now, with the same pid and the same arguments. Returns only on an
/// error.
pub(super) fn execute(program: io::Result<ProgramName>, inheritance: &Inheritance) -> String {
    let option = format!("--{OPTION}");
    let arguments = std::env::args_os().skip(1).filter(|argument| *argument != *option);
    let mut command = match program.and_then(|program| program.command()) {
        Ok(command) => command,
        Err(error) => return format!("cannot restart: {error}"),
    };
    command.args(arguments).arg(&option);
    let error = match inheritance.to_link() {
        Ok(stdin) => command.stdin(stdin).exec().to_string(),
        Err(error) => error.to_string(),
    };
    format!("cannot restart as {}: {error}", command.get_program().display())
}

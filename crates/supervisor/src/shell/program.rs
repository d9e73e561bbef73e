//! The program of the workers: looked up anew for a start and a roll, and held open in between.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, Mode, OFlags};

/// Variables of the parent's own service manager, which say nothing to a worker.
const DROPPED: [&str; 7] =
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// How the program of this process was named, and from which folder.
#[derive(Clone, Debug)]
pub struct ProgramName {
    given: PathBuf,
    /// The working directory as the shell named it, with its links: after a deploy they lead to the new release.
    folder: PathBuf,
}

/// A program and the folder that it runs in. Both stay what they are when a deploy replaces or removes them.
#[derive(Debug)]
pub(super) struct Program {
    name: PathBuf,
    file: File,
    folder: OwnedFd,
}

impl ProgramName {
    /// The name of the running program. If its first argument leads elsewhere, which the process that started it may
    /// have set to anything, it is the path of the running file.
    ///
    /// # Errors
    ///
    /// The working directory does not exist any more.
    pub fn of_process() -> io::Result<Self> {
        let folder = working_directory()?;
        let running = std::env::current_exe()?;
        let given = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let is_running = |given: &PathBuf| {
            look_up(given, &folder).is_ok_and(|found| found.canonicalize().is_ok_and(|path| path == running))
        };
        let given = if is_running(&given) { given } else { running };
        Ok(Self { given, folder })
    }

    /// A command that runs the program that is there now, under the name of this one, in the folder that is there now.
    ///
    /// # Errors
    ///
    /// There is no such program in `PATH`.
    pub fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(look_up(&self.given, &self.folder)?);
        command.arg0(&self.given).current_dir(&self.folder);
        Ok(command)
    }
}

/// The working directory by the path in `PWD`, if that leads there.
fn working_directory() -> io::Result<PathBuf> {
    let current = std::env::current_dir()?;
    let same = |path: &Path| {
        let pair = path.metadata().and_then(|one| Ok((one, current.metadata()?)));
        path.is_absolute() && pair.is_ok_and(|(one, other)| is_same(&one, &other))
    };
    let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| same(path));
    Ok(named.unwrap_or(current))
}

fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Looks a program up as a shell does: a name without a slash through `PATH`.
fn look_up(given: &Path, folder: &Path) -> io::Result<PathBuf> {
    if given.components().count() != 1 || given.is_absolute() {
        return Ok(folder.join(given));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|part| folder.join(part).join(given)).find(|path| is_program(path));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such program in PATH"))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

impl Program {
    /// Looks the program and its folder up, and holds them open.
    pub(super) fn open(name: &ProgramName) -> Result<Self, String> {
        let path = look_up(&name.given, &name.folder);
        let path = path.map_err(|error| format!("cannot start {}: {error}", name.given.display()))?;
        let open = || -> io::Result<(OwnedFd, OwnedFd)> {
            rustix::fs::access(&path, Access::EXEC_OK)?;
            let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok((file, rustix::fs::open(&name.folder, folder, Mode::empty())?))
        };
        let (file, folder) = open().map_err(|error| format!("cannot start {}: {error}", path.display()))?;
        Ok(Self { name: path, file: file.into(), folder })
    }

    /// A command that runs it. By its name if that leads to the open file, since that is what `ps` shows; else by the
    /// file.
    pub(super) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let by_name = || Ok::<_, io::Error>(is_same(&self.name.metadata()?, &self.file.metadata()?));
        let by_file = || PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let path = if by_name().unwrap_or(false) { self.name.clone() } else { by_file() };
        let mut command = Command::new(path);
        command.arg0(&self.name).args(arguments).current_dir(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        for name in DROPPED {
            command.env_remove(name);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write_program(path: &Path, text: &str) {
        std::fs::copy("/bin/echo", path).unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    #[test]
    fn a_program_that_was_deleted_runs_on_and_a_link_is_followed_anew() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["1", "2"] {
            std::fs::create_dir(folder.path().join(release)).unwrap();
            write_program(&folder.path().join(release).join("app"), release);
        }
        let current = folder.path().join("current");
        symlink("1", &current).unwrap();
        let name = ProgramName { given: "./app".into(), folder: current.clone() };
        let held = Program::open(&name).unwrap();
        assert_eq!(held.command(&[""; 0]).get_program(), current.join("./app"));
        std::fs::remove_file(&current).unwrap();
        symlink("2", &current).unwrap();
        std::fs::remove_dir_all(folder.path().join("1")).unwrap();
        let mut command = held.command(&["still here"]);
        assert!(command.get_program().as_encoded_bytes().starts_with(b"/proc/self/fd/"));
        assert_eq!(command.output().unwrap().stdout, b"still here\n");
        let anew = Program::open(&name).unwrap();
        assert_eq!(anew.command(&[""; 0]).get_program(), current.join("./app"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let open = |given: &str| {
            let name = ProgramName { given: given.into(), folder: folder.path().to_owned() };
            Program::open(&name).unwrap_err()
        };
        assert!(open("./none").contains("none: No such file"), "{}", open("./none"));
        assert!(open("no-such-program").ends_with("no-such-program: no such program in PATH"));
        std::fs::write(folder.path().join("plain"), "").unwrap();
        assert!(open("./plain").contains("ermission denied"), "{}", open("./plain"));
    }
}

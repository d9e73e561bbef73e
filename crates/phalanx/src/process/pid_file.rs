//! The pid file: deploy scripts find the process by its content, and other processes learn by its lock that it runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// The attempts to lock a file that others remove meanwhile: each of them has held the lock before this process.
const ATTEMPTS: u32 = 16;

/// A file with the process id, locked from before the boot to the end of the process.
///
/// The lock and not the number in the file says whether its process runs: the kernel takes it from a process that is
/// killed, and gives the number of that process to another one some day.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    /// The lock is that of the open file: it is held as long as any process has a copy of the descriptor.
    file: File,
}

/// Why a process cannot have its pid file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    #[error("it runs already: {holder} holds {}", path.display())]
    Held { holder: String, path: PathBuf },
    #[error("{}: {source}: set paths.pid to a folder that can be written, or to \"\" for no pid file", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl PidFile {
    /// Locks and writes the file of a node, unless `paths.pid` is empty. The last program of this process may have left the
    /// one that it held; if that is another, it is removed.
    pub(super) fn of_node(settings: &Settings, left: Option<Self>) -> Result<Option<Self>, String> {
        let folder = &settings.config.paths.pid;
        if folder.as_os_str().is_empty() {
            return Ok(None);
        }
        let path = folder.join(format!("{}.pid", settings.file_stem()));
        if let Some(left) = left.filter(|left| is_at(&left.file, &path)) {
            return Ok(Some(left));
        }
        Self::hold(path).map(Some).map_err(|error| format!("node {}: {error}", settings.node_id))
    }

    /// A file that this process holds already.
    pub(super) fn of_open(file: File) -> Option<Self> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        Some(Self { path, file })
    }

    /// Locks and writes a file.
    pub(crate) fn hold(path: PathBuf) -> Result<Self, PidFileError> {
        match lock(&path) {
            Ok(FileLock::Held(file)) => Ok(Self { path, file }),
            Ok(FileLock::OfOther(holder)) => Err(PidFileError::Held { holder, path }),
            Err(source) => Err(PidFileError::File { path, source }),
        }
    }
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path); // still locked: a start meanwhile sees that the file is gone
        }
    }
}

/// The lock of a file.
enum FileLock {
    /// This process holds it, and its id is written.
    Held(File),
    /// The process that holds it.
    OfOther(String),
}

/// Locks a file and writes the process id to it.
fn lock(path: &Path) -> io::Result<FileLock> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => {
                file.set_len(0)?; // a reader finds no number rather than one of two processes
                file.write_all_at(std::process::id().to_string().as_bytes(), 0)?;
                return Ok(FileLock::Held(file));
            }
            Ok(()) => {} // its process has ended and removed it between the two steps
            Err(TryLockError::WouldBlock) => return Ok(FileLock::OfOther(holder(&file))),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other("other processes create and remove it all the time"))
}

/// Whether the open file is the one that is at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|file| std::fs::metadata(path).is_ok_and(|at| id(at) == id(file)))
}

/// The process that has locked the file. It writes its id right after.
fn holder(file: &File) -> String {
    let mut text = [0; 20];
    let read = file.read_at(&mut text, 0).unwrap_or_default();
    match std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!("process {pid}"),
        None => "a process that starts at this moment".to_owned(),
    }
}

//! The program of this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What this process was started as. A path is kept as it was given, links and all, so that it leads to what stands there
/// later; the system's own answer would name the file that is running, even where it has been replaced.
pub(super) fn started_as() -> PathBuf {
    let running = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let given = std::env::args_os().next().map(PathBuf::from);
    let given = given.filter(|given| given.components().count() > 1 && is_file(given, &running));
    given.and_then(|given| std::path::absolute(given).ok()).unwrap_or(running)
}

/// Whether a path leads to that file: the first argument is whatever the parent wanted it to be.
fn is_file(path: &Path, file: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == file)
}

/// Begins anew in this very process: same pid, same arguments, fresh program. Returns only if it cannot.
pub(super) fn begin_anew(program: &Path) -> String {
    let error: io::Error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    format!("cannot restart as {}: {error}", program.display())
}

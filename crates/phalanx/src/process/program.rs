//! The program of this process.

use std::path::{Path, PathBuf};

/// The path that this process was started by.
///
/// It is kept as it was given, symbolic links included, so that a restart executes the program that a deploy has put
/// there meanwhile. `/proc/self/exe` would name the running file even where it has been replaced.
pub(super) fn path() -> PathBuf {
    let running = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let given = std::env::args_os().next().map(PathBuf::from);
    let given = given.filter(|given| given.components().count() > 1 && leads_to(given, &running));
    given.and_then(|given| std::path::absolute(given).ok()).unwrap_or(running)
}

/// Whether a path leads to that file. The first argument need not: the parent process may set it to anything.
fn leads_to(path: &Path, file: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == file)
}

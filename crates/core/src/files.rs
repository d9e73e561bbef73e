//! Public files: a client's path resolves to a file under one of the roots, never to any other.
//!
//! A path is decoded once, and refused if a segment is `..`, starts with a dot (`.well-known` excepted) or contains a
//! slash, a backslash or a control character. Its target must be a regular file whose real path, with links resolved,
//! is under one of the roots.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing::warn;

use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::protocol::FileMessage;

/// Most bytes of a path.
const MAX_PATH: usize = 4096;

/// The folders whose files any client may read. The first folder that has a file wins.
#[derive(Clone, Debug)]
pub struct PublicFiles {
    roots: Vec<PathBuf>,
}

/// An open file with its metadata.
#[derive(Debug)]
pub struct PublicFile {
    /// The file.
    pub file: tokio::fs::File,
    /// Size in bytes at the time it was opened.
    pub len: u64,
    /// Time of the last change.
    pub modified: SystemTime,
    /// The media type, derived from the file's name.
    pub mime: &'static str,
}

/// The reason why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not exist, or it is not public. A client cannot distinguish the two.
    #[error("that file is not found")]
    NotFound,
    /// It could not be read.
    #[error("a file could not be read")]
    Io(#[source] io::Error),
}

impl From<FileError> for ActionError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::NotFound => Self::not_found("that file is not found"),
            FileError::Io(_) => Self::internal(error),
        }
    }
}

impl PublicFiles {
    /// Resolves the roots. One that does not exist is skipped, with a warning unless it is the only one: the
    /// default folder need not exist.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        let only = roots.len() == 1;
        let real = roots.into_iter().filter_map(|root| match root.canonicalize() {
            Ok(real) => Some(real),
            Err(error) => {
                if !only {
                    warn!(root = %root.display(), %error, "skipping a public folder that cannot be opened");
                }
                None
            }
        });
        Self { roots: real.collect() }
    }

    /// Opens the file that a client's path names; for a folder, its `index.html`.
    ///
    /// # Errors
    ///
    /// [`FileError::NotFound`] for everything but a regular file under a root.
    pub async fn open(&self, path: &str) -> Result<PublicFile, FileError> {
        let relative = safe_path(path).ok_or(FileError::NotFound)?;
        let roots = self.roots.clone();
        in_background(move || find(&roots, &relative)).await
    }

    /// Reads a whole file, for a socket, and returns what `encode` makes of it.
    ///
    /// All of that happens on a thread that may block: to escape half a megabyte takes a millisecond in which other
    /// clients would wait.
    ///
    /// # Errors
    ///
    /// `not_found`, or `payload_too_large` beyond `max` bytes.
    pub async fn read_for_socket<T: Send + 'static>(
        &self,
        path: &str,
        max: u64,
        encode: impl FnOnce(&FileMessage) -> T + Send + 'static,
    ) -> Result<T, ActionError> {
        let relative = safe_path(path).ok_or(FileError::NotFound)?;
        let roots = self.roots.clone();
        let read = move || Ok(encode(&find(&roots, &relative)?.message(max)?));
        tokio::task::spawn_blocking(read).await.map_err(ActionError::internal)?
    }
}

/// A file that was opened on a thread that may block.
struct OpenFile {
    file: File,
    len: u64,
    modified: SystemTime,
    mime: &'static str,
}

impl From<OpenFile> for PublicFile {
    fn from(OpenFile { file, len, modified, mime }: OpenFile) -> Self {
        Self { file: tokio::fs::File::from_std(file), len, modified, mime }
    }
}

impl OpenFile {
    /// Reads all of it, at most `max` bytes.
    fn message(self, max: u64) -> Result<FileMessage, ActionError> {
        let too_large = || {
            bound_reached("websocket.max_file");
            ActionError::of(ErrorKind::PayloadTooLarge, "the file is too large for a socket")
        };
        if self.len > max {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(self.len as usize);
        self.file.take(max + 1).read_to_end(&mut bytes).map_err(ActionError::internal)?;
        if bytes.len() as u64 > max {
            return Err(too_large());
        }
        let length = bytes.len() as u64;
        let (content, encoding) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => (STANDARD.encode(error.as_bytes()), Some("base64")),
        };
        let last_modified = iso_8601(self.modified);
        Ok(FileMessage { content, encoding, mime: self.mime.to_owned(), length, last_modified })
    }
}

/// Opens a file at any path, for the application's own code.
///
/// # Errors
///
/// [`FileError::NotFound`] if it is not a regular file.
pub async fn open_path(path: &Path) -> Result<PublicFile, FileError> {
    let path = path.to_owned();
    in_background(move || open_regular(&path)).await
}

async fn in_background(
    work: impl FnOnce() -> Result<OpenFile, FileError> + Send + 'static,
) -> Result<PublicFile, FileError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(FileError::Io(io::Error::other(error)))).map(PublicFile::from)
}

/// Converts a client's path to a relative one below a root; `None` if any segment is refused.
fn safe_path(path: &str) -> Option<PathBuf> {
    if path.len() > MAX_PATH {
        return None;
    }
    let mut safe = PathBuf::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let segment = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        let hidden = segment.starts_with('.') && segment != ".well-known";
        if hidden || segment.is_empty() || segment.contains(['/', '\\']) || segment.chars().any(char::is_control) {
            return None;
        }
        safe.push(&*segment);
    }
    Some(safe)
}

fn find(roots: &[PathBuf], relative: &Path) -> Result<OpenFile, FileError> {
    for root in roots {
        match open_under(root, &root.join(relative)) {
            Err(FileError::NotFound) => {}
            found => return found,
        }
    }
    Err(FileError::NotFound)
}

fn open_under(root: &Path, path: &Path) -> Result<OpenFile, FileError> {
    let mut real = path.canonicalize().map_err(file_error)?;
    if real.is_dir() {
        real = real.join("index.html").canonicalize().map_err(file_error)?;
    }
    if !real.starts_with(root) {
        return Err(FileError::NotFound);
    }
    open_regular(&real)
}

/// Opens a regular file. It checks the type before it opens, because opening a FIFO blocks, and compares the identity
/// of the opened file afterwards, because a link may have replaced it in between.
fn open_regular(path: &Path) -> Result<OpenFile, FileError> {
    let checked = path.metadata().map_err(file_error)?;
    if !checked.is_file() {
        return Err(FileError::NotFound);
    }
    let file = File::open(path).map_err(file_error)?;
    let opened = file.metadata().map_err(FileError::Io)?;
    if !is_same(&checked, &opened) {
        return Err(FileError::NotFound);
    }
    let modified = opened.modified().unwrap_or(UNIX_EPOCH);
    Ok(OpenFile { len: opened.len(), modified, mime: mime_of(path), file })
}

/// Returns the media type of a file by its name. On the web `.ts` is TypeScript, not video, and a `.map` is JSON.
fn mime_of(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(extension));
    if is_one_of(&["ts", "mts", "cts", "tsx"]) {
        "text/plain"
    } else if is_one_of(&["map"]) {
        "application/json"
    } else if is_one_of(&["js", "mjs", "cjs"]) {
        "text/javascript"
    } else {
        mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream")
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.is_file() == b.is_file()
}

fn file_error(error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput => FileError::NotFound,
        _ if error.raw_os_error() == Some(40) => FileError::NotFound, // ELOOP: a cycle of links
        _ => FileError::Io(error),
    }
}

/// Formats a time as `2026-11-23T02:46:45.198Z`, converting days since 1970 to the civil calendar.
fn iso_8601(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day is the last day of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests;

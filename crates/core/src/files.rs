//! Files under the public roots: found by a path from outside, never anywhere else.
//!
//! A path is decoded once, and refused if a segment is `..`, starts with a dot (`.well-known` excepted) or holds a
//! slash, a backslash or a control character. What it leads to must be a regular file whose real path, links resolved,
//! is under one of the roots.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt;
use tracing::warn;

use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// Most bytes of a path.
const MAX_PATH: usize = 4096;

/// The folders whose files everybody may read; the first that has a file gives it.
#[derive(Clone, Debug)]
pub struct PublicFiles {
    roots: Vec<PathBuf>,
}

/// An open file, and what is known of it.
#[derive(Debug)]
pub struct PublicFile {
    /// The file.
    pub file: tokio::fs::File,
    /// How many bytes it had when it was opened.
    pub len: u64,
    /// When it was changed.
    pub modified: SystemTime,
    /// Its media type, by its name.
    pub mime: &'static str,
}

/// A file as a socket gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMessage {
    /// The text, or base64.
    pub content: String,
    /// `base64` if the file is not UTF-8.
    pub encoding: Option<&'static str>,
    /// Its media type.
    pub mime: String,
    /// How many bytes the file has.
    pub length: u64,
    /// When it was changed: `2026-11-23T02:46:45.198Z`.
    pub last_modified: String,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none, or it is none of the client's business.
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
    /// Names the roots. One that does not exist is skipped with a warning, unless it is the only one.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        let only = roots.len() == 1;
        let real = roots.into_iter().filter_map(|root| match root.canonicalize() {
            Ok(real) => Some(real),
            Err(error) => {
                if !only {
                    warn!(root = %root.display(), %error, "a public folder is skipped");
                }
                None
            }
        });
        Self { roots: real.collect() }
    }

    /// Opens the file that a path from outside means; for a folder, its `index.html`.
    ///
    /// # Errors
    ///
    /// [`FileError::NotFound`] for everything that is no regular file under a root.
    pub async fn open(&self, path: &str) -> Result<PublicFile, FileError> {
        let relative = safe_path(path).ok_or(FileError::NotFound)?;
        let roots = self.roots.clone();
        in_background(move || find(&roots, &relative)).await
    }

    /// Reads a file whole, for a socket.
    ///
    /// # Errors
    ///
    /// `not_found`, or `payload_too_large` beyond `most` bytes.
    pub async fn read_for_socket(&self, path: &str, most: u64) -> Result<FileMessage, ActionError> {
        let opened = self.open(path).await?;
        let too_large = || {
            bound_reached("websocket.max_file");
            ActionError::of(ErrorKind::PayloadTooLarge, "the file is too large for a socket")
        };
        if opened.len > most {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(opened.len as usize);
        let read = opened.file.take(most + 1).read_to_end(&mut bytes).await;
        read.map_err(ActionError::internal)?;
        if bytes.len() as u64 > most {
            return Err(too_large());
        }
        let length = bytes.len() as u64;
        let (content, encoding) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => (STANDARD.encode(error.as_bytes()), Some("base64")),
        };
        let last_modified = iso_8601(opened.modified);
        Ok(FileMessage { content, encoding, mime: opened.mime.to_owned(), length, last_modified })
    }
}

/// Opens a file that the application names itself, anywhere.
///
/// # Errors
///
/// [`FileError::NotFound`] if it is no regular file.
pub async fn open_path(path: &Path) -> Result<PublicFile, FileError> {
    let path = path.to_owned();
    in_background(move || open_regular(&path)).await
}

async fn in_background(
    work: impl FnOnce() -> Result<PublicFile, FileError> + Send + 'static,
) -> Result<PublicFile, FileError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(FileError::Io(io::Error::other(error))))
}

/// The path below a root that a path from outside means; `None` if it means anything else.
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

fn find(roots: &[PathBuf], relative: &Path) -> Result<PublicFile, FileError> {
    for root in roots {
        match open_under(root, &root.join(relative)) {
            Err(FileError::NotFound) => {}
            found => return found,
        }
    }
    Err(FileError::NotFound)
}

fn open_under(root: &Path, path: &Path) -> Result<PublicFile, FileError> {
    let mut real = path.canonicalize().map_err(refusal_of)?;
    if real.is_dir() {
        real = real.join("index.html").canonicalize().map_err(refusal_of)?;
    }
    if !real.starts_with(root) {
        return Err(FileError::NotFound);
    }
    open_regular(&real)
}

/// Opens a regular file, and makes sure that what was opened is what was looked at: a FIFO would block the open, and a
/// link could have been put in its place meanwhile.
fn open_regular(path: &Path) -> Result<PublicFile, FileError> {
    let looked_at = path.metadata().map_err(refusal_of)?;
    if !looked_at.is_file() {
        return Err(FileError::NotFound);
    }
    let file = std::fs::File::open(path).map_err(refusal_of)?;
    let opened = file.metadata().map_err(FileError::Io)?;
    if !is_same(&looked_at, &opened) {
        return Err(FileError::NotFound);
    }
    Ok(PublicFile {
        len: opened.len(),
        modified: opened.modified().unwrap_or(UNIX_EPOCH),
        mime: mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream"),
        file: tokio::fs::File::from_std(file),
    })
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

fn refusal_of(error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput => FileError::NotFound,
        _ if error.raw_os_error() == Some(40) => FileError::NotFound, // ELOOP: links in a circle
        _ => FileError::Io(error),
    }
}

/// `2026-11-23T02:46:45.198Z`, by the civil calendar from the days since 1970.
fn iso_8601(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day is the last of its year.
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

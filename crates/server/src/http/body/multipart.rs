//! Reading a multipart body: fields into memory, files to temporary files that go with the request.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use phalanx_core::params::{Params, Upload};
use phalanx_core::{ActionError, ErrorKind};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use super::limits::{Limits, Most, over};
use super::timeout::{Late, Paced};
use super::{BodyError, malformed};
use crate::quota::Share;

/// Reads part after part.
pub(super) async fn read(
    body: Paced<Incoming>,
    boundary: String,
    most: Most,
    limits: Limits<'_>,
    params: &mut Params,
) -> Result<(), BodyError> {
    let (settings, takes_files) = (&limits.config().web, limits.takes_files());
    let refusal_of = |error| refusal_of(error, most);
    let whole = multer::SizeLimit::new().whole_stream(most.bytes() as u64);
    let constraints = multer::Constraints::new().size_limit(whole);
    let heads = Heads::new(settings.max_body.as_u64() + LARGEST_PIECE);
    let mut parts = multer::Multipart::with_constraints(heads.watch(body.into_data_stream()), boundary, constraints);
    let (mut files, mut fields, mut field_bytes) = (0, 0, 0_u64);
    let mut keep = |bytes: usize| {
        field_bytes += bytes as u64;
        let is_much = field_bytes > settings.max_body.as_u64();
        if is_much { Err(over("web.max_body", "the fields of the body are too large")) } else { Ok(()) }
    };
    loop {
        heads.begin();
        let next = parts.next_field().await.map_err(refusal_of)?;
        heads.end();
        let Some(mut part) = next else { return Ok(()) };
        fields += 1;
        if fields > settings.max_files * 11 {
            return Err(over("web.max_files", "a request has too many fields").into());
        }
        let Some(name) = part.name().map(str::to_owned) else { continue };
        keep(name.len())?;
        let Some(file_name) = part.file_name().map(str::to_owned) else {
            let mut text = Vec::new();
            while let Some(chunk) = part.chunk().await.map_err(refusal_of)? {
                keep(chunk.len())?;
                text.extend_from_slice(&chunk);
            }
            let text = String::from_utf8(text).map_err(|_| malformed("a field is not UTF-8"))?;
            params.push_field(&name, text)?;
            continue;
        };
        files += 1;
        if files > settings.max_files {
            return Err(over("web.max_files", "a request has too many files").into());
        }
        if !takes_files {
            continue; // the reader skips what was not read
        }
        let content_type = part.content_type().map_or("application/octet-stream", |media| media.as_ref()).to_owned();
        keep(file_name.len() + content_type.len())?;
        let (file, size) = save(&mut part, most, limits).await?;
        if file_name.is_empty() && size == 0 {
            continue; // a form's file field that was left empty
        }
        params.push_file(&name, Upload::new(file, file_name, content_type, size))?;
    }
}

/// More than hyper hands on at once: the piece in which a head ends may go on with content.
const LARGEST_PIECE: u64 = 512 * 1024;

/// Bounds what a multipart body may send between its parts: the reader would keep all of it, and look through it again
/// with every piece that comes.
struct Heads {
    most: u64,
    /// Bytes since a part's head was begun; `u64::MAX` while a part's content is read.
    seen: Arc<AtomicU64>,
}

/// What [`Heads`] breaks a body off with.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes between the parts of a multipart body")]
struct LongHead;

impl Heads {
    fn new(most: u64) -> Self {
        Self { most, seen: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn begin(&self) {
        self.seen.store(0, Relaxed);
    }

    fn end(&self) {
        self.seen.store(u64::MAX, Relaxed);
    }

    fn watch(
        &self,
        body: impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>>,
    ) -> impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> {
        let (seen, most) = (self.seen.clone(), self.most);
        body.map(move |chunk| {
            let chunk = chunk?;
            let before = seen.load(Relaxed);
            if before != u64::MAX {
                let now = before + chunk.len() as u64;
                seen.store(now, Relaxed);
                if now > most {
                    return Err(LongHead.into());
                }
            }
            Ok(chunk)
        })
    }
}

/// A temporary file and its share of `web.max_uploads_total`; both go together.
struct Stored {
    path: TempPath,
    _space: Share,
}

impl AsRef<Path> for Stored {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

async fn save(part: &mut multer::Field<'_>, most: Most, limits: Limits<'_>) -> Result<(Stored, u64), BodyError> {
    let folder = limits.config().paths.uploads.clone();
    let folder = if folder.as_os_str().is_empty() { std::env::temp_dir() } else { folder };
    let full = || ActionError::of(ErrorKind::Unavailable, "the server holds as many files as it may");
    let mut space = limits.uploads.take(0).ok_or_else(full)?;
    let created = tokio::task::spawn_blocking(move || tempfile::Builder::new().prefix("phalanx-").tempfile_in(folder));
    let (file, path) = created.await.map_err(ActionError::internal)?.map_err(ActionError::internal)?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut size = 0;
    while let Some(chunk) = part.chunk().await.map_err(|error| refusal_of(error, most))? {
        if !space.grow(chunk.len() as u64) {
            return Err(full().into());
        }
        size += chunk.len() as u64;
        file.write_all(&chunk).await.map_err(ActionError::internal)?;
    }
    file.flush().await.map_err(ActionError::internal)?;
    Ok((Stored { path, _space: space }, size))
}

fn refusal_of(error: multer::Error, most: Most) -> BodyError {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => most.exceeded().into(),
        multer::Error::StreamReadFailed(cause) if cause.is::<Late>() => BodyError::Late,
        multer::Error::StreamReadFailed(cause) if cause.is::<LongHead>() => {
            over("web.max_body", "the body is too large").into()
        }
        _ => malformed("the multipart body cannot be read").into(),
    }
}

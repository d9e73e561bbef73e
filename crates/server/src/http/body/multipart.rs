//! Reads multipart bodies: fields into memory, files into temporary files that are deleted with the request.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::{FutureExt, Stream, StreamExt, TryFutureExt};
use http_body_util::BodyExt;
use phalanx_core::params::{Params, Upload};
use phalanx_core::{ActionError, bound_reached};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::batch::Batch;
use super::disposition::Disposition;
use super::limits::{BodyLimits, BodySizeLimit, limit_exceeded};
use super::request::LentBody;
use super::temporary_file::{CompleteFile, OnDisk};
use super::timeout::{BodyTimeout, TimedBody};
use super::{BodyError, exhausted, grow, malformed};
use crate::quota::SharedPermit;
use crate::shares::SharedBound;

/// Reads all parts of a body into `params`.
pub(super) async fn read(
    body: TimedBody<LentBody>,
    boundary: String,
    limit: BodySizeLimit,
    limits: BodyLimits<'_>,
    (params, memory): (&mut Params, &mut SharedPermit),
) -> Result<(), BodyError> {
    let (settings, takes_files) = (&limits.config().web, limits.takes_files());
    let error_of = |error| error_of(error, limit);
    let whole = multer::SizeLimit::new().whole_stream(limit.bytes() as u64);
    let constraints = multer::Constraints::new().size_limit(whole);
    let max_fields = limits.without_files();
    let heads = HeadLimit::new(max_fields.bytes() as u64 + MAX_CHUNK);
    let mut parts = multer::Multipart::with_constraints(heads.watch(body.into_data_stream()), boundary, constraints);
    let (mut files, mut fields, mut field_bytes) = (0, 0, 0_u64);
    let mut count_field_bytes = |bytes: usize| {
        field_bytes += bytes as u64;
        let is_exceeded = field_bytes > max_fields.bytes() as u64;
        if is_exceeded {
            return Err(max_fields.exceeded_by("the fields of the body are too large"));
        }
        grow(memory, bytes)
    };
    loop {
        heads.start();
        let next = parts.next_field().await.map_err(error_of)?;
        heads.end();
        let Some(mut part) = next else { return Ok(()) };
        fields += 1;
        if fields > settings.max_files * 11 {
            return Err(limit_exceeded("web.max_files", "a request has too many fields").into());
        }
        // multer's own search for the two names finds them inside other quoted values, and minds their case.
        let Disposition { name: Some(name), file_name } = Disposition::of(part.headers())? else { continue };
        count_field_bytes(name.len())?;
        let Some(file_name) = file_name else {
            let mut text = Vec::new();
            while let Some(chunk) = part.chunk().await.map_err(error_of)? {
                count_field_bytes(chunk.len())?;
                text.extend_from_slice(&chunk);
            }
            let text = String::from_utf8(text).map_err(|_| malformed("a field is not UTF-8"))?;
            params.push_field(&name, text)?;
            continue;
        };
        files += 1;
        if files > settings.max_files {
            return Err(limit_exceeded("web.max_files", "a request has too many files").into());
        }
        if !takes_files {
            continue; // multer skips the rest of the part
        }
        let content_type = part.content_type().map_or("application/octet-stream", |media| media.as_ref()).to_owned();
        count_field_bytes(file_name.len() + content_type.len())?;
        let (file, size) = save(&mut part, limit, limits).await?;
        if file_name.is_empty() && size == 0 {
            continue; // a form's file field without a file
        }
        params.push_file(&name, Upload::new(file, file_name, content_type, size))?;
    }
}

/// More than hyper yields at a time: the chunk in which the head of a part ends may go on with its content.
const MAX_CHUNK: u64 = 512 * 1024;

/// The limit for bytes between two parts of a multipart body: multer would buffer all of them, and search the buffer
/// again with every chunk that arrives.
struct HeadLimit {
    limit: u64,
    /// Bytes since the head of a part started; `u64::MAX` while the content of a part is read.
    received: Arc<AtomicU64>,
}

/// The error of a body that exceeds [`HeadLimit`].
#[derive(Debug, thiserror::Error)]
#[error("too many bytes between the parts of a multipart body")]
struct HeadTooLong;

impl HeadLimit {
    fn new(limit: u64) -> Self {
        Self { limit, received: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn start(&self) {
        self.received.store(0, Relaxed);
    }

    fn end(&self) {
        self.received.store(u64::MAX, Relaxed);
    }

    fn watch(
        &self,
        body: impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>>,
    ) -> impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> {
        let (received, limit) = (self.received.clone(), self.limit);
        body.map(move |chunk| {
            let chunk = chunk?;
            let before = received.load(Relaxed);
            if before != u64::MAX {
                let now = before + chunk.len() as u64;
                received.store(now, Relaxed);
                if now > limit {
                    return Err(HeadTooLong.into());
                }
            }
            Ok(chunk)
        })
    }
}

/// Writes a part to a temporary file; returns the file and its size.
async fn save(
    part: &mut multer::Field<'_>,
    limit: BodySizeLimit,
    limits: BodyLimits<'_>,
) -> Result<(OnDisk<CompleteFile>, u64), BodyError> {
    let patience = limits.config().web.body_timeout;
    let folder = limits.config().paths.uploads.clone();
    let folder = if folder.as_os_str().is_empty() { std::env::temp_dir() } else { folder };
    let mut file = OnDisk::new(folder, SharedPermit::start(limits.uploads, limits.share, SharedBound::UploadBytes));
    let empty = || Batch::new(limits.memory);
    let (mut batch, mut size) = (empty(), 0);
    loop {
        let next = match next_piece(part).await {
            Some(piece) => piece.map_err(|error| error_of(error, limit))?,
            // No memory is held while the client is awaited.
            None => {
                let writing = on_disk(patience, file.write(std::mem::replace(&mut batch, empty())));
                let receiving = async { part.chunk().await.map_err(|error| error_of(error, limit)) };
                let piece;
                (file, piece) = try_join(writing.map_err(BodyError::from), receiving).await?;
                piece
            }
        };
        let Some(piece) = next else { break };
        let full = |bound| exhausted(bound, "the server holds as many files as it may");
        file.try_grow(piece.len() as u64).map_err(full)?;
        size += piece.len() as u64;
        if !batch.try_add(&piece) {
            file = on_disk(patience, file.write(std::mem::replace(&mut batch, empty()))).await?;
            batch.try_add(&piece);
        }
    }
    Ok((on_disk(patience, file.complete(batch)).await?, size))
}

/// Returns the next piece of a part if it has come. hyper reads it in a poll of its own, once the one before was taken.
async fn next_piece(part: &mut multer::Field<'_>) -> Option<multer::Result<Option<Bytes>>> {
    for is_last in [false, true] {
        if let Some(piece) = part.chunk().now_or_never() {
            return Some(piece);
        }
        if !is_last {
            yield_now().await;
        }
    }
    None
}

/// Waits for a step on a disk: one that hangs must not keep a request for ever, whose deadline stands still meanwhile.
async fn on_disk<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, ActionError> {
    match timeout(patience, step).await {
        Ok(done) => done.map_err(ActionError::internal),
        Err(_) => {
            bound_reached("web.body_timeout");
            Err(ActionError::internal("the folder of uploads does not answer"))
        }
    }
}

fn error_of(error: multer::Error, limit: BodySizeLimit) -> BodyError {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => limit.exceeded().into(),
        multer::Error::StreamReadFailed(cause) if cause.is::<BodyTimeout>() => BodyError::Timeout,
        multer::Error::StreamReadFailed(cause) if cause.is::<HeadTooLong>() => {
            limit_exceeded("web.max_body", "the body is too large").into()
        }
        _ => malformed("the multipart body cannot be read").into(),
    }
}

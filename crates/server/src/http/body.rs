//! Reading a request's body: within its size and its time, into params.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use phalanx_core::config::Config;
use phalanx_core::params::{Params, Upload};
use phalanx_core::{ActionError, ErrorKind};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client is told in the usual way.
    Refused(ActionError),
    /// The client did not send it in time: 408.
    Late,
}

impl From<ActionError> for BodyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

/// What reads a body, by its media type.
enum Reader {
    Json,
    Form,
    Multipart(String),
}

/// Reads a body into `params`. Without a content type it is not read.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    config: &Config,
    params: &mut Params,
) -> Result<(), BodyError> {
    let Some(reader) = reader_of(headers)? else { return Ok(()) };
    let settings = &config.web;
    let most = match reader {
        Reader::Multipart(_) => settings.max_upload.as_u64(),
        Reader::Json | Reader::Form => settings.max_body.as_u64(),
    };
    if length_of(headers).is_some_and(|length| length > most) {
        if !headers.contains_key(EXPECT) {
            drain(body).await; // a client that waits for a word before it sends needs none
        }
        return Err(too_large().into());
    }
    let deadline = Instant::now() + settings.body_timeout;
    match reader {
        Reader::Json => params.set_json_body(&collect(body, most, deadline).await?)?,
        Reader::Form => {
            let bytes = collect(body, most, deadline).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the body is not UTF-8"))?;
            params.push_form(text)?;
        }
        Reader::Multipart(boundary) => {
            let parts = read_parts(body, boundary, config, params);
            timeout_at(deadline, parts).await.unwrap_or(Err(BodyError::Late))?;
        }
    }
    Ok(())
}

fn reader_of(headers: &HeaderMap) -> Result<Option<Reader>, ActionError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(Some(Reader::Json));
    }
    match media.as_str() {
        "application/x-www-form-urlencoded" => Ok(Some(Reader::Form)),
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(text).map_err(|_| malformed("the body names no boundary"))?;
            Ok(Some(Reader::Multipart(boundary)))
        }
        _ if length_of(headers) == Some(0) => Ok(None),
        _ => {
            let message = "send application/json, application/x-www-form-urlencoded or multipart/form-data";
            Err(ActionError::of(ErrorKind::UnsupportedMediaType, message))
        }
    }
}

async fn collect(body: Body, most: u64, deadline: Instant) -> Result<bytes::Bytes, BodyError> {
    let limited = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX));
    match timeout_at(deadline, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large().into()),
        Ok(Err(_)) => Err(malformed("the body broke off").into()),
        Err(_) => Err(BodyError::Late),
    }
}

/// Reads the parts of a multipart body: fields into memory, files to temporary files that go with the request.
async fn read_parts(body: Body, boundary: String, config: &Config, params: &mut Params) -> Result<(), BodyError> {
    let settings = &config.web;
    let whole = multer::SizeLimit::new().whole_stream(settings.max_upload.as_u64());
    let constraints = multer::Constraints::new().size_limit(whole);
    let heads = Heads::new(settings.max_body.as_u64() + LARGEST_PIECE);
    let mut parts = multer::Multipart::with_constraints(heads.watch(body.into_data_stream()), boundary, constraints);
    let (mut files, mut fields, mut field_bytes) = (0, 0, 0_u64);
    loop {
        heads.begin();
        let next = parts.next_field().await.map_err(refusal_of)?;
        heads.end();
        let Some(mut part) = next else { break };
        fields += 1;
        if fields > settings.max_files * 11 {
            return Err(over("a request has too many fields").into());
        }
        let Some(name) = part.name().map(str::to_owned) else { continue };
        if let Some(file_name) = part.file_name().map(str::to_owned) {
            files += 1;
            if files > settings.max_files {
                return Err(over("a request has too many files").into());
            }
            let content_type = part.content_type().map_or("application/octet-stream", |media| media.as_ref());
            let content_type = content_type.to_owned();
            let (path, size) = save(&mut part, &config.paths.uploads).await?;
            if file_name.is_empty() && size == 0 {
                continue; // a form's file field that was left empty
            }
            params.push_file(&name, Upload::new(path, file_name, content_type, size))?;
            continue;
        }
        let mut text = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(refusal_of)? {
            field_bytes += chunk.len() as u64;
            if field_bytes > settings.max_body.as_u64() {
                return Err(too_large().into());
            }
            text.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(text).map_err(|_| malformed("a field is not UTF-8"))?;
        params.push_field(&name, text)?;
    }
    Ok(())
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
        body: impl Stream<Item = Result<Bytes, axum::Error>>,
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

async fn save(part: &mut multer::Field<'_>, folder: &Path) -> Result<(tempfile::TempPath, u64), BodyError> {
    let folder = if folder.as_os_str().is_empty() { std::env::temp_dir() } else { folder.to_owned() };
    let created = tokio::task::spawn_blocking(move || tempfile::Builder::new().prefix("phalanx-").tempfile_in(folder));
    let (file, path) = created.await.map_err(ActionError::internal)?.map_err(ActionError::internal)?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut size = 0;
    while let Some(chunk) = part.chunk().await.map_err(refusal_of)? {
        size += chunk.len() as u64;
        file.write_all(&chunk).await.map_err(ActionError::internal)?;
    }
    file.flush().await.map_err(ActionError::internal)?;
    Ok((path, size))
}

fn refusal_of(error: multer::Error) -> BodyError {
    let refused = match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(),
        multer::Error::StreamReadFailed(cause) if cause.is::<LongHead>() => too_large(),
        _ => malformed("the multipart body cannot be read"),
    };
    refused.into()
}

/// Reads on for a moment, so that a client that is still writing sees the answer and not a reset.
async fn drain(body: Body) {
    const MOST: u64 = 16 * 1024 * 1024;
    let mut stream = body.into_data_stream();
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            read += chunk.len() as u64;
            if read > MOST {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_millis(500), reading).await;
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}

fn too_large() -> ActionError {
    over("the body is too large")
}

fn over(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::PayloadTooLarge, message)
}

//! Reads request bodies into params, within limits of size and time.

pub(super) mod accepted;
mod batch;
mod disposition;
mod limits;
mod multipart;
pub(super) mod own_route;
pub(super) mod reader;
pub(super) mod request;
mod segments;
mod temporary_file;
pub(super) mod timeout;
pub(super) mod unread;

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use phalanx_core::params::Params;
use phalanx_core::{ActionError, ErrorKind};

use accepted::{AcceptedBody, BodyFormat};
pub(super) use limits::{BodyLimits, BodySizeLimit, check_actions};
use request::LentBody;
use segments::Segments;
use timeout::{BodyTimeout, TimedBody};

use crate::quota::{Exhausted, Quota, SharedPermit};
use crate::shares::{self, AddressShare, SharedBound};

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client gets this error.
    Refused(ActionError),
    /// The client did not send it in time and gets a 408.
    Timeout,
}

impl From<ActionError> for BodyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

/// Reads a body into `params`, and counts its memory; returns its bytes if the action takes them as they come.
pub(super) async fn read(
    body: LentBody,
    accepted: &AcceptedBody,
    limits: &BodyLimits<'_>,
    (params, memory): (&mut Params, &mut SharedPermit),
) -> Result<Option<Bytes>, BodyError> {
    let (mut body, limit) = (TimedBody::new(body, &limits.config().web), accepted.limit);
    match &accepted.format {
        BodyFormat::Json => params.set_json_body(&collect(&mut body, limit, memory).await?)?,
        BodyFormat::Form => {
            let bytes = collect(&mut body, limit, memory).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the body is not UTF-8"))?;
            params.push_form(text)?;
        }
        // In a box of its own: bodies of other formats need no room for it.
        BodyFormat::Multipart(boundary) => {
            Box::pin(multipart::read(body, boundary.clone(), limit, *limits, (params, memory))).await?;
        }
        BodyFormat::Raw => return Ok(Some(collect(&mut body, limit, memory).await?)),
    }
    Ok(None)
}

/// Collects a body, and counts its memory as it grows.
async fn collect(
    body: &mut TimedBody<LentBody>,
    limit: BodySizeLimit,
    memory: &mut SharedPermit,
) -> Result<Bytes, BodyError> {
    let declared = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let mut segments = Segments::new(declared.unwrap_or(usize::MAX).min(limit.bytes()));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<BodyTimeout>() { BodyError::Timeout } else { malformed("the body broke off").into() }
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if segments.length() + data.len() > limit.bytes() {
            return Err(limit.exceeded().into());
        }
        grow(memory, data.len())?;
        if segments.length() == 0 && body.is_end_stream() {
            return Ok(data); // all of it came at once, as most bodies do
        }
        segments.push(&data);
    }
    Ok(segments.join())
}

/// Counts bytes of a body that are kept in memory.
fn grow(memory: &mut SharedPermit, by: usize) -> Result<(), ActionError> {
    memory.try_grow(by as u64).map_err(|bound| exhausted(bound, "the server holds as many bodies as it may"))
}

/// Takes the permit of a body that is awaited.
fn start_waiting(waiting_bodies: &Quota, share: Option<&Arc<AddressShare>>) -> Result<SharedPermit, ActionError> {
    let permit = SharedPermit::try_acquire(waiting_bodies, share, SharedBound::WaitingBodies, 1);
    permit.map_err(|bound| exhausted(bound, "the server awaits as many bodies as it may"))
}

/// The error of a body that a stopping node awaits no longer.
fn not_before_the_stop() -> ActionError {
    ActionError::of(ErrorKind::Unavailable, "the server is shutting down")
}

/// The error of a body for which there is no room.
fn exhausted(bound: Exhausted, message: &'static str) -> ActionError {
    match bound {
        Exhausted::Quota => ActionError::of(ErrorKind::Unavailable, message),
        Exhausted::Share => shares::limit_reached(),
    }
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}

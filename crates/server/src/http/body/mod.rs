//! Reads request bodies into params, within limits of size and time.

pub(super) mod accepted;
mod disposition;
mod limits;
mod multipart;
pub(super) mod own_route;
pub(super) mod reader;
pub(super) mod request;
pub(super) mod timeout;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use phalanx_core::params::Params;
use phalanx_core::{ActionError, ErrorKind};

use accepted::{AcceptedBody, BodyFormat};
pub(super) use limits::{BodyLimits, BodySizeLimit};
use request::LentBody;
use timeout::{BodyTimeout, TimedBody};

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

/// Reads a body into `params`; returns its bytes if the action takes them as they come.
pub(super) async fn read(
    body: LentBody,
    AcceptedBody { format, limit, .. }: AcceptedBody,
    limits: BodyLimits<'_>,
    params: &mut Params,
) -> Result<Option<Bytes>, BodyError> {
    let body = TimedBody::new(body, &limits.config().web);
    match format {
        BodyFormat::Json => params.set_json_body(&collect(body, limit).await?)?,
        BodyFormat::Form => {
            let bytes = collect(body, limit).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the body is not UTF-8"))?;
            params.push_form(text)?;
        }
        BodyFormat::Multipart(boundary) => multipart::read(body, boundary, limit, limits, params).await?,
        BodyFormat::Raw => return Ok(Some(collect(body, limit).await?)),
    }
    Ok(None)
}

async fn collect(body: TimedBody<LentBody>, limit: BodySizeLimit) -> Result<Bytes, BodyError> {
    match Limited::new(body, limit.bytes()).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<BodyTimeout>() => Err(BodyError::Timeout),
        Err(error) if error.is::<LengthLimitError>() => Err(limit.exceeded().into()),
        Err(_) => Err(malformed("the body broke off").into()),
    }
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}

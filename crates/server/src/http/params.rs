//! Path, query and body of a request, merged into the params of a call: path over body over query.

use axum::extract::{FromRequestParts, RawPathParams};
use http::Method;
use http::request::Parts;
use phalanx_core::config::Config;
use phalanx_core::{ActionError, ErrorKind, Params};

use super::body::{self, BodyError};

/// Reads everything a request brings.
pub(super) async fn read(
    parts: &mut Parts,
    body: axum::body::Body,
    config: &Config,
    has_path_params: HasPathParams,
) -> Result<Params, BodyError> {
    let mut params = Params::default();
    if let Some(query) = parts.uri.query() {
        params.push_query(query)?;
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        body::read(&parts.headers, body, config, &mut params).await?;
    }
    if has_path_params == HasPathParams::Yes {
        let path = RawPathParams::from_request_parts(parts, &()).await;
        let path = path.map_err(|_| ActionError::of(ErrorKind::Malformed, "the path is not percent-encoded UTF-8"))?;
        for (name, value) in &path {
            params.push_path(name, value.to_owned())?;
        }
    }
    Ok(params)
}

/// Whether a route's path has parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasPathParams {
    Yes,
    No,
}

//! The params of a call, merged from path, body and query; in this order of precedence.

use http::{HeaderMap, Method, Uri};
use hyper::body::Incoming;
use phalanx_core::{ActionError, Params};

use super::body::{self, BodyError, BodyLimits};

/// Reads query, body and path parameters of a request.
pub(super) async fn read(
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: Option<Incoming>,
    limits: BodyLimits<'_>,
    path: impl Iterator<Item = (&str, Result<String, ActionError>)>,
) -> Result<Params, BodyError> {
    let mut params = Params::default();
    if let Some(query) = uri.query() {
        params.push_query(query)?;
    }
    if let Some(body) = body.filter(|_| !matches!(*method, Method::GET | Method::HEAD)) {
        // On the heap: most calls have no body, and the future that reads one is large.
        Box::pin(body::read(headers, body, limits, &mut params)).await?;
    }
    for (name, value) in path {
        params.push_path(name, value?)?;
    }
    Ok(params)
}

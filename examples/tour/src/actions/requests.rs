//! Actions that look at the request itself.

use phalanx::prelude::*;

#[output]
pub(crate) struct Taken {
    bytes: usize,
}

/// Takes what another service pushes, if it is signed: `x-signature` is the HMAC-SHA-256 of the body with the key `tour`.
#[action(post, raw_body)]
pub(crate) async fn webhook(body: RawBody) -> Result<Taken, ActionError> {
    body.verify_hmac_sha256(b"tour", "x-signature")?;
    Ok(Taken { bytes: body.len() })
}

//! The body of a call as it came, for signatures of webhooks.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha2::Sha256;

use crate::caller::Caller;
use crate::context::Context;
use crate::error::{ActionError, ErrorKind};
use crate::guard::FromContext;

/// The body of an HTTP request as it came, for an action with `raw_body`: what a webhook signs are these bytes.
///
/// The action's params are those of path and query then. No `Content-Encoding` is undone, and any `Content-Type` will do. It
/// is established after the body has come, as every guard whose [`FromContext::AFTER_BODY`] is `true`.
///
/// ```
/// use phalanx_core::{ActionError, RawBody};
///
/// async fn pushed(body: RawBody) -> Result<usize, ActionError> {
///     body.verify_hmac_sha256(b"the secret of the webhook", "x-hub-signature-256")?;
///     Ok(body.len())
/// }
/// ```
#[derive(Clone)]
pub struct RawBody {
    bytes: Bytes,
    caller: Arc<Caller>,
}

impl RawBody {
    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.caller.headers
    }

    /// Checks the signature in a header: the HMAC-SHA-256 of the bytes in hex, as it is or after `sha256=`. The comparison
    /// takes the same time wherever they differ.
    ///
    /// # Errors
    ///
    /// `unauthenticated` with the code `signature_mismatch` if the header is missing, there twice, no such signature, or that
    /// of other bytes or another key; `internal` if the key is empty, which anybody could sign with.
    pub fn verify_hmac_sha256(&self, key: &[u8], header: &str) -> Result<(), ActionError> {
        if key.is_empty() {
            return Err(ActionError::internal("the key of a signature is empty"));
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(ActionError::internal)?;
        mac.update(&self.bytes);
        let mut values = self.headers().get_all(header).into_iter();
        let signature = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        let signature = signature.map(|text| text.strip_prefix("sha256=").unwrap_or(text));
        let signature = signature.and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok());
        let is_valid = signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok());
        if is_valid { Ok(()) } else { Err(mismatch()) }
    }
}

fn mismatch() -> ActionError {
    ActionError::new(ErrorKind::Unauthenticated, "signature_mismatch", "the signature of the body does not match")
}

impl Deref for RawBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for RawBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawBody({})", self.bytes.len())
    }
}

impl FromContext for RawBody {
    const AFTER_BODY: bool = true;

    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let refused = || ActionError::forbidden("this action reads the bytes of an HTTP body");
        let bytes = ctx.raw_body().cloned().ok_or_else(refused)?;
        Ok(Self { bytes, caller: ctx.shared_caller().clone() })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// A test vector of RFC 4231, 4.3.
    const KEY: &[u8] = b"Jefe";
    const BYTES: &[u8] = b"what do ya want for nothing?";
    const SIGNATURE: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    fn body(bytes: &'static [u8], headers: &[(&'static str, &str)]) -> RawBody {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let caller = Arc::new(Caller::http("f".into(), ([127, 0, 0, 1], 1).into(), map));
        RawBody { bytes: Bytes::from_static(bytes), caller }
    }

    #[test]
    fn a_signature_is_that_of_the_bytes_and_of_the_key() {
        let check = |bytes: &'static [u8], key: &[u8], signature: &str| {
            body(bytes, &[("x-signature", signature)])
                .verify_hmac_sha256(key, "X-Signature")
                .map_err(|error| error.code().to_owned())
        };
        let mismatch = Err("signature_mismatch".to_owned());
        assert_eq!(check(BYTES, KEY, SIGNATURE), Ok(()));
        assert_eq!(check(BYTES, KEY, &format!("sha256={SIGNATURE}")), Ok(()));
        assert_eq!(check(BYTES, KEY, &SIGNATURE.to_uppercase()), Ok(()));
        assert_eq!(check(b"what do ya want for nothing!", KEY, SIGNATURE), mismatch);
        assert_eq!(check(BYTES, b"jefe", SIGNATURE), mismatch);
        for wrong in
            ["", "sha256=", &SIGNATURE[..62], &format!("{SIGNATURE}00"), &format!("sha1={SIGNATURE}"), "\u{e9}"]
        {
            assert_eq!(check(BYTES, KEY, wrong), mismatch, "{wrong}");
        }
        assert_eq!(check(BYTES, KEY, &SIGNATURE.replace('5', "g")), mismatch);
        assert_eq!(check(BYTES, b"", SIGNATURE), Err("internal".to_owned()));
    }

    #[test]
    fn a_header_that_is_missing_or_there_twice_is_no_signature() {
        let twice = [("x-signature", SIGNATURE), ("x-signature", SIGNATURE)];
        for headers in [&[][..], &twice] {
            let refused = body(BYTES, headers).verify_hmac_sha256(KEY, "x-signature").unwrap_err();
            assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthenticated, "signature_mismatch"));
        }
        assert!(body(BYTES, &[]).verify_hmac_sha256(KEY, "no header").is_err());
    }
}

//! Errors on the wire: the HTTP status of each kind, and the one JSON shape that every transport sends.

use http::StatusCode;
use phalanx_core::{ActionError, ErrorKind};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// Maps an error kind to its HTTP status.
pub(crate) const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::InvalidInput => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::RateLimited | ErrorKind::TooManyPending => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Writes `{"error":{"code","message","details"?}}`.
pub(crate) fn body_of(error: &ActionError) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    text.extend_from_slice(b"{\"error\":");
    serde_json::to_writer(&mut text, &ErrorObject(error))
        .expect("strings always serialize, and a Vec accepts every byte");
    text.push(b'}');
    text
}

struct ErrorObject<'a>(&'a ActionError);

impl Serialize for ErrorObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", self.0.code())?;
        map.serialize_entry("message", self.0.message())?;
        if !self.0.details().is_empty() {
            map.serialize_entry("details", &DetailList(self.0))?;
        }
        map.end()
    }
}

struct DetailList<'a>(&'a ActionError);

impl Serialize for DetailList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct DetailObject<'a> {
            path: &'a str,
            code: &'a str,
            message: &'a str,
        }
        let mut list = serializer.serialize_seq(Some(self.0.details().len()))?;
        for detail in self.0.details() {
            list.serialize_element(&DetailObject { path: &detail.path, code: &detail.code, message: &detail.message })?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use phalanx_core::Detail;

    use super::*;

    #[test]
    fn an_error_serializes_to_one_shape() {
        let error = ActionError::not_found("no such thing");
        assert_eq!(body_of(&error), br#"{"error":{"code":"not_found","message":"no such thing"}}"#);
        let error = ActionError::invalid_input(vec![Detail::new("a[0]", "type", "must be a \"number\"")]);
        let expected = r#"{"error":{"code":"invalid_input","message":"the input is not valid","details":[{"path":"a[0]","code":"type","message":"must be a \"number\""}]}}"#;
        assert_eq!(String::from_utf8(body_of(&error)).unwrap(), expected);
    }

    #[test]
    fn the_kinds_are_sorted_by_their_status() {
        let statuses: Vec<_> = ErrorKind::ALL.iter().map(|kind| status_of(*kind).as_u16()).collect();
        assert!(statuses.is_sorted(), "{statuses:?}");
    }
}

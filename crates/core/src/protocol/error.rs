//! The one shape of an error, on every transport.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::error::{ActionError, Detail};

/// `{"error":{"code","message","details"?,"cause"?}}`.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

impl<'a> ErrorBody<'a> {
    /// The public part of an error; its cause stays in the log, unless the client is a developer on the machine of the node.
    pub const fn new(error: &'a ActionError) -> Self {
        Self { error: ErrorFields(error) }
    }
}

/// Encodes an error. The object is whole, so that a transport can splice its own fields onto it.
pub fn error_body(error: &ActionError) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    serde_json::to_writer(&mut text, &ErrorBody::new(error))
        .expect("strings are always JSON, and a vector takes every byte");
    text
}

#[derive(Debug)]
struct ErrorFields<'a>(&'a ActionError);

impl Serialize for ErrorFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", self.0.code())?;
        map.serialize_entry("message", self.0.message())?;
        if !self.0.details().is_empty() {
            map.serialize_entry("details", &DetailList(self.0.details()))?;
        }
        if let Some(cause) = self.0.shown_cause() {
            map.serialize_entry("cause", &cause)?;
        }
        map.end()
    }
}

struct DetailList<'a>(&'a [Detail]);

impl Serialize for DetailList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct DetailFields<'a> {
            path: &'a str,
            code: &'a str,
            message: &'a str,
            #[serde(rename = "retryAfterMs", skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for detail in self.0 {
            let Detail { path, code, message, retry_after } = detail;
            let retry_after_ms = retry_after.map(|after| after.as_micros().div_ceil(1000) as u64);
            list.serialize_element(&DetailFields { path, code, message, retry_after_ms })?;
        }
        list.end()
    }
}

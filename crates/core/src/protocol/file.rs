//! A file, as a socket gets it.

use serde::Serialize;

/// A file, as a socket gets it: the reply to `file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileMessage {
    /// The text, or base64.
    pub content: String,
    /// `base64` if the file is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
    /// Its media type.
    pub mime: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was changed: `2026-11-23T02:46:45.198Z`.
    pub last_modified: String,
}

/// A file that the server sends unasked: the same fields, with a context.
#[derive(Debug, Serialize)]
pub struct FilePush<'a> {
    #[serde(flatten)]
    file: &'a FileMessage,
    context: &'static str,
}

impl<'a> FilePush<'a> {
    /// Sends that file.
    pub const fn new(file: &'a FileMessage) -> Self {
        Self { file, context: "response" }
    }
}

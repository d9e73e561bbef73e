//! A file that came with a request.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// What an [`Upload`] asks its deserializer for; only that of a real file answers it.
pub(super) const TOKEN: &str = "$phalanx::Upload";

/// A file that came with a multipart request, in a temporary file that goes when the call is over.
///
/// To keep it, copy or rename it within the call. Nothing else decodes into it: a JSON body cannot name a path.
#[derive(Clone, Debug)]
pub struct Upload {
    path: PathBuf,
    name: String,
    content_type: String,
    size: u64,
    _file: Option<Arc<dyn Any + Send + Sync>>,
}

impl Upload {
    /// Takes a temporary file that was written: what removes it when it is dropped, with the params it is in.
    pub fn new<F>(file: F, name: String, content_type: String, size: u64) -> Self
    where
        F: AsRef<Path> + Send + Sync + 'static,
    {
        Self { path: file.as_ref().to_owned(), name, content_type, size, _file: Some(Arc::new(file)) }
    }

    /// Where it is, until the call is over.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the client calls it. Not fit to be a path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the client says it is.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A file cannot be written as JSON: an action that takes one is not called by another.
impl serde::Serialize for Upload {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a file that came with a request cannot be sent on"))
    }
}

impl<'de> Deserialize<'de> for Upload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TOKEN, FileVisitor)
    }
}

/// Accepts the four entries of a real file. JSON comes as a newtype, which is not accepted.
struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = Upload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Upload, A::Error> {
        let mut entry = || map.next_entry::<String, String>();
        let mut take = || entry()?.map(|(_, value)| value).ok_or_else(|| A::Error::custom("a file"));
        let (path, name, content_type, size) = (take()?, take()?, take()?, take()?);
        let size = size.parse().map_err(A::Error::custom)?;
        Ok(Upload { path: path.into(), name, content_type, size, _file: None })
    }
}

impl JsonSchema for Upload {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Upload".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "format": "binary" })
    }
}

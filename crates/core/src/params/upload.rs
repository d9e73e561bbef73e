//! A file that a client uploads.

use std::any::Any;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use tokio::task::spawn_blocking;

use crate::error::ActionError;
use crate::id::random_text;

/// The newtype name that [`Upload`] requests from its deserializer; only [`ParamDeserializer`] knows it, for a real
/// file.
///
/// [`ParamDeserializer`]: super::deserializer::ParamDeserializer
pub(super) const TOKEN: &str = "$phalanx::Upload";

/// A file of a multipart request. It lies in a temporary file that is removed when the call is over.
///
/// [`persist`](Self::persist) keeps it. Nothing else decodes into it: a JSON body cannot name a path.
///
/// ```
/// use phalanx_core::ActionError;
/// use phalanx_core::params::Upload;
/// # use phalanx_core::Params;
/// # use schemars::JsonSchema;
/// # use serde::Deserialize;
/// # use validator::Validate;
///
/// // `#[input]` derives these.
/// #[derive(Deserialize, JsonSchema, Validate)]
/// struct NewAvatar {
///     picture: Upload,
/// }
///
/// async fn store(input: &NewAvatar, folder: &std::path::Path) -> Result<(), ActionError> {
///     // The client chose `name` and `content_type`: neither is fit for a path, nor proof of what the file is.
///     input.picture.persist(folder.join("avatar")).await
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let temporary = tempfile::NamedTempFile::new()?;
/// # std::fs::write(&temporary, "a picture")?;
/// # let mut params = Params::default();
/// # params.push_file("picture", Upload::new(temporary, "cat.png".into(), "image/png".into(), 9))?;
/// # let input: NewAvatar = params.decode()?;
/// # let folder = tempfile::tempdir()?;
/// store(&input, folder.path()).await?;
/// assert_eq!(std::fs::read(folder.path().join("avatar"))?, b"a picture");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Upload {
    path: PathBuf,
    name: String,
    content_type: String,
    size: u64,
    _file: Option<Arc<dyn Any + Send + Sync>>,
}

impl Upload {
    /// Takes a written temporary file, whose drop must remove it from disk. It is dropped with the params that
    /// contain it: a decoded `Upload` has its path alone.
    pub fn new<F>(file: F, name: String, content_type: String, size: u64) -> Self
    where
        F: AsRef<Path> + Send + Sync + 'static,
    {
        Self { path: file.as_ref().to_owned(), name, content_type, size, _file: Some(Arc::new(file)) }
    }

    /// The path of the temporary file, until the call is over.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the file: moves it to this path, in place of a file that is there. Readers see the old one or the new one, never a
    /// part of it. The folder must exist.
    ///
    /// Cancel safe: once begun it runs to its end, so that a call which is over leaves the whole file or none.
    ///
    /// # Errors
    ///
    /// `internal` if it cannot be written there.
    pub async fn persist(&self, to: impl AsRef<Path> + Send) -> Result<(), ActionError> {
        let (from, to) = (self.path.clone(), to.as_ref().to_owned());
        let moved = spawn_blocking(move || move_file(&from, &to)).await;
        moved.map_err(ActionError::internal)?.map_err(ActionError::internal)
    }

    /// The file's name by the client's account. Not fit to be a path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The media type by the client's account; nothing has checked it.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    // Uploads are on another file system.
    let mut part = to.as_os_str().to_owned();
    part.push(format!(".{}.part", random_text::<8>()));
    let copied = fs::copy(from, &part).and_then(|_| fs::rename(&part, to));
    if copied.is_err() {
        let _ = fs::remove_file(&part); // its caller gets the first error
    }
    copied
}

/// Always fails: a file cannot be written as JSON, so an action that takes one cannot be called by another action.
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

/// Accepts the four entries of a real file. JSON arrives as a newtype, which this visitor does not accept.
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const CONTENT: &str = "what a client sent";

    /// An upload on another file system than the folder where it is kept: beside this program.
    fn upload() -> (Upload, tempfile::TempDir) {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        fs::write(file.path(), CONTENT).unwrap();
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        (Upload::new(file, "log.txt".to_owned(), "text/plain".to_owned(), CONTENT.len() as u64), folder)
    }

    fn files_of(folder: &Path) -> Vec<(PathBuf, String)> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.file_name().unwrap().into(), fs::read_to_string(path).unwrap())).collect()
    }

    #[tokio::test]
    async fn a_file_is_kept_on_another_file_system() {
        let (upload, folder) = upload();
        upload.persist(folder.path().join("7")).await.unwrap();
        assert_eq!(files_of(folder.path()), [("7".into(), CONTENT.to_owned())]);
        assert_eq!(upload.persist(folder.path().join("no/7")).await.unwrap_err().code(), "internal");
        assert_eq!(files_of(folder.path()).len(), 1, "and no part");
    }

    #[test]
    fn a_call_that_is_over_leaves_the_whole_file_or_none() {
        for _ in 0..20 {
            let (upload, folder) = upload();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut persisting = pin!(upload.persist(folder.path().join("7")));
                assert!(persisting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            });
            drop(runtime); // waits for what has begun
            assert!([vec![], vec![("7".into(), CONTENT.to_owned())]].contains(&files_of(folder.path())));
        }
    }
}

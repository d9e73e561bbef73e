//! The temporary file of an upload. Only threads that may block touch its disk.
//!
//! Each step may take long, the last one above all: to remove a file of megabytes takes as long as ten requests, and on a
//! slow disk up to 3 s, until the kernel has written the pages that it is writing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::batch::Batch;
use crate::quota::{Exhausted, SharedPermit};

/// A value on a disk: its steps run on threads that may block, and it is dropped on one.
#[derive(Debug)]
pub(super) struct OnDisk<T: Send + 'static>(Option<T>);

/// A file that is written, with its permit under `web.max_uploads_total`. It is made with its first bytes.
#[derive(Debug)]
pub(super) struct PartialFile {
    folder: PathBuf,
    file: Option<NamedTempFile>,
    permit: SharedPermit,
}

/// A file that was written and closed. First it is removed, then its permit is given back.
#[derive(Debug)]
pub(super) struct CompleteFile {
    path: TempPath,
    _permit: SharedPermit,
}

impl OnDisk<PartialFile> {
    pub(super) fn new(folder: PathBuf, permit: SharedPermit) -> Self {
        Self(Some(PartialFile { folder, file: None, permit }))
    }

    /// Takes a permit for `by` more bytes.
    pub(super) fn try_grow(&mut self, by: u64) -> Result<(), Exhausted> {
        self.0.as_mut().map_or(Ok(()), |file| file.permit.try_grow(by))
    }

    /// Adds bytes.
    pub(super) async fn write(self, batch: Batch) -> io::Result<Self> {
        if batch.is_empty() { Ok(self) } else { self.step(move |file| file.write(&batch)).await }
    }

    /// Adds the last bytes, and closes the file.
    pub(super) async fn complete(self, batch: Batch) -> io::Result<OnDisk<CompleteFile>> {
        self.step(move |file| {
            let PartialFile { folder, file, permit } = file.write(&batch)?;
            let path = file.map_or_else(|| new_file(&folder), Ok)?.into_temp_path();
            Ok(CompleteFile { path, _permit: permit })
        })
        .await
    }
}

impl PartialFile {
    fn write(mut self, bytes: &[u8]) -> io::Result<Self> {
        if !bytes.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(new_file(&self.folder)?),
            };
            file.write_all(bytes)?;
        }
        Ok(self)
    }
}

fn new_file(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("phalanx-").tempfile_in(folder)
}

impl<T: Send + 'static> OnDisk<T> {
    /// Runs a step. If this future is dropped meanwhile, its result is dropped after the step.
    async fn step<U: Send + 'static>(
        mut self,
        step: impl FnOnce(T) -> io::Result<U> + Send + 'static,
    ) -> io::Result<OnDisk<U>> {
        let value = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        spawn_blocking(move || step(value).map(|next| OnDisk(Some(next)))).await?
    }
}

impl AsRef<Path> for OnDisk<CompleteFile> {
    fn as_ref(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), |file| &file.path)
    }
}

impl<T: Send + 'static> Drop for OnDisk<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        match Handle::try_current() {
            // A runtime that shuts down drops it at once.
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
            Err(_) => drop(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::read_dir;
    use std::sync::mpsc;

    use super::*;
    use crate::quota::Quota;
    use crate::shares::SharedBound;

    #[test]
    fn files_are_made_and_removed_on_threads_that_may_block() {
        let folder = tempfile::tempdir().unwrap();
        let files = || read_dir(folder.path()).unwrap().count();
        let quota = Quota::new("test", 100);
        let batch = |bytes: &[u8]| {
            let mut batch = Batch::new(&quota);
            assert!(batch.try_add(bytes));
            batch
        };
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let permit = SharedPermit::start(&quota, None, SharedBound::UploadBytes);
            let mut partial = OnDisk::new(folder.path().into(), permit);
            partial.try_grow(8).unwrap();
            let partial = partial.write(batch(b"one, ")).await.unwrap();
            let complete = partial.complete(batch(b"two")).await.unwrap();
            assert_eq!(std::fs::read(complete.as_ref()).unwrap(), b"one, two");
            assert_eq!((files(), quota.used()), (1, 8));
            let (answers, hangs) = mpsc::channel::<()>();
            let disk = spawn_blocking(move || hangs.recv());
            drop(complete);
            assert_eq!((files(), quota.used()), (1, 8), "nothing of it is gone before the disk goes on");
            answers.send(()).unwrap();
            disk.await.unwrap().unwrap();
            spawn_blocking(|| ()).await.unwrap();
            assert_eq!((files(), quota.used()), (0, 0));
        });
    }
}

//! The file descriptor that a sink writes to: an inherited stream, or a log file that can be reopened under its name.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use super::daily::DailyFile;

/// An output of lines. Its writes wait for the reader, and must only happen on the sink's own thread.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// The name of a log file.
    daily: Option<DailyFile>,
}

impl Output {
    /// A stream of this process.
    ///
    /// It is written to as it is. Other processes share it, the parent above all: to make it non-blocking here would
    /// make it non-blocking there. The lock of `std::io::stderr` is not taken, since a write that never ends would keep
    /// it.
    pub(super) fn stream(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self { file: stream.as_fd().try_clone_to_owned()?.into(), daily: None })
    }

    /// A log file, with so many of earlier days beside it.
    pub(super) fn append_to(folder: &Path, name: &str, keep: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (daily, file) = DailyFile::open(folder.join(name), keep)?;
        Ok(Self { file, daily: Some(daily) })
    }

    /// Begins a new log file if the day of this one is over.
    pub(super) fn rotate_if_due(&mut self) -> io::Result<()> {
        if let Some(daily) = &mut self.daily
            && let Some(file) = daily.rotate_if_due()?
        {
            self.file = file;
        }
        Ok(())
    }

    /// Opens a log file again under its name, after logrotate or the like has renamed the old one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(daily) = &self.daily {
            self.file = daily.reopen()?;
        }
        Ok(())
    }

    /// Writes the bytes. Returns how many of them were written, with the error if these are not all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made the shared stream non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
                }
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_reopened_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::append_to(&folder.path().join("log"), "node.log", 7).unwrap();
        let write = |output: &mut Output, text: &str| output.write(text.as_bytes()).1.unwrap();
        write(&mut output, "one\n");
        let old = folder.path().join("log/node.log.1");
        fs::rename(folder.path().join("log/node.log"), &old).unwrap();
        write(&mut output, "two\n");
        output.reopen().unwrap();
        write(&mut output, "three\n");
        assert_eq!(fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(folder.path().join("log/node.log")).unwrap(), "three\n");
    }
}

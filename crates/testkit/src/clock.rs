//! A clock of a server that a test sets, while that of the machine goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

const SOURCE: &str = include_str!("clock.c");

/// The clock in the folder of a server.
pub(crate) struct ServerClock {
    library: PathBuf,
    offset: PathBuf,
}

impl ServerClock {
    /// That of a folder, which it may have or not.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { library: folder.join("clock.so"), offset: folder.join("clock-offset") }
    }

    /// Builds it with the C compiler, which Rust links with.
    pub(crate) async fn build(&self) {
        let source = self.library.with_extension("c");
        fs::write(&source, SOURCE).and_then(|()| fs::write(&self.offset, 0_i64.to_ne_bytes())).expect("a new folder");
        let arguments = ["-O1", "-shared", "-fPIC", "-o"];
        let built = Command::new("cc").args(arguments).arg(&self.library).arg(source).stdin(Stdio::null()).status();
        assert!(built.await.expect("Rust needs a C compiler to link").success(), "the clock is built");
    }

    /// Lets a server have it, if it was built.
    pub(crate) fn preload(&self, server: &mut Command) {
        if self.library.exists() {
            server.env("LD_PRELOAD", &self.library).env("CLOCK_OFFSET", &self.offset);
        }
    }

    /// Sets it by so many seconds against that of the machine. The server has the file mapped.
    pub(crate) fn set(&self, seconds: i64) {
        let offset = File::options().write(true).open(&self.offset).expect("the clock was built");
        offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("its folder is writable");
    }
}

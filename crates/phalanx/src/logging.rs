//! Logs: to stderr, as text in development and as JSON in production, and to a file if `log.file` is set.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::config::LogFormat;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::settings::Settings;
use crate::telemetry;

/// Lines that may be queued for the disk; further ones are dropped and counted.
const QUEUED_LINES: usize = 16_384;

/// The handle of the installed log. Dropping it flushes the file and stops its writer thread.
#[derive(Default)]
pub(crate) struct LogHandle {
    file: Option<LogFile>,
    _guard: Option<WorkerGuard>,
}

impl LogHandle {
    /// Reopens the log file under its name, after logrotate or the like has renamed the old one.
    pub(crate) fn reopen(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.reopen()
        {
            tracing::error!(%error, "the log file could not be reopened; lines still go to the old one");
        }
    }
}

/// Installs the log. A second call in one process has no effect.
///
/// # Errors
///
/// The filter in `log.level` cannot be parsed, or the file cannot be opened.
pub(crate) fn install(settings: &Settings) -> Result<LogHandle, String> {
    let log = &settings.config.log;
    let filter = || EnvFilter::try_new(&log.level).map_err(|error| format!("log.level {:?}: {error}", log.level));
    let as_json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => settings.environment.is_production(),
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let console = fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let console = if as_json {
        console.json().flatten_event(true).with_filter(filter()?).boxed()
    } else {
        console.with_filter(filter()?).boxed()
    };
    let mut installed = LogHandle::default();
    let to_file = if log.file {
        let name = format!("{}-{}.log", settings.file_stem(), settings.environment.0);
        let file = LogFile::open(&settings.config.paths.log, &name)
            .map_err(|error| format!("log file in {}: {error}", settings.config.paths.log.display()))?;
        let (writer, guard) =
            NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES).lossy(true).finish(file.clone());
        telemetry::record_dropped_lines(writer.error_counter());
        installed = LogHandle { file: Some(file), _guard: Some(guard) };
        Some(fmt::layer().with_writer(writer).with_ansi(false).json().flatten_event(true).with_filter(filter()?))
    } else {
        None
    };
    // A test may have installed a subscriber of its own, which then wins.
    let _ = tracing_subscriber::registry().with(console).with(to_file).try_init();
    Ok(installed)
}

/// A log file that can be reopened under its name.
#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(folder: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name);
        Ok(Self { file: Arc::new(Mutex::new(Self::append_to(&path)?)), path })
    }

    fn reopen(&self) -> io::Result<()> {
        let fresh = Self::append_to(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn append_to(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(path)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_reopened_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LogFile::open(&folder.path().join("log"), "node.log").unwrap();
        file.write_all(b"one\n").unwrap();
        let old = folder.path().join("log/node.log.1");
        fs::rename(folder.path().join("log/node.log"), &old).unwrap();
        file.write_all(b"two\n").unwrap();
        file.reopen().unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(folder.path().join("log/node.log")).unwrap(), "three\n");
    }
}

//! The pid file, by which deploy scripts find the process.

use std::path::PathBuf;

use tracing::warn;

use crate::settings::Settings;

/// A file with the process id, from the start of the boot to the end of the process.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(settings: &Settings) -> Self {
        let path = settings.config.paths.pid.join(format!("{}.pid", settings.file_stem()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = written.and_then(|()| std::fs::write(&path, Self::content())) {
            warn!(%error, path = %path.display(), "the pid file was not written");
        }
        Self(path)
    }

    fn content() -> String {
        std::process::id().to_string()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process with the same node id may have overwritten it meanwhile.
        if std::fs::read_to_string(&self.0).is_ok_and(|pid| pid == Self::content()) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

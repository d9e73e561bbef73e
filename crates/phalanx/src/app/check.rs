//! Everything that a node checks before it listens and joins its cluster: `start --check`.

use std::path::Path;
use std::process::ExitCode;

use phalanx_core::backend::Backend;
use phalanx_core::error::Chain;
use phalanx_core::{BoxError, Engine};
use rustix::fs::{Access, access};

use super::{App, failed, print, redis_of};
use crate::logging;
use crate::process::Sockets;
use crate::settings::Settings;

impl App {
    /// Checks what a boot checks. Prints one line, or the errors with exit code 1.
    pub(super) fn check(self, settings: Settings) -> ExitCode {
        match self.checked(settings) {
            Ok(sentence) => print(&format!("ok: {sentence}\n")),
            Err(errors) => failed(&errors.join("\n       ")),
        }
    }

    /// A sentence about the application, or all errors.
    pub(super) fn checked(self, mut settings: Settings) -> Result<String, Vec<String>> {
        let mut errors = Vec::new();
        errors.extend(logging::check_filter(&settings.config.log.level).err());
        errors.extend(unwritable_folders(&settings));
        errors.extend(self.missing_public_folders(&mut settings));
        errors.extend(check_redis(&self.name, &settings).err().map(|error| Chain(&*error).to_string()));
        let name = format!("{} {}, environment {}", self.name, self.version, settings.environment.0);
        match self.check_definitions(settings) {
            Ok(counts) if errors.is_empty() => Ok(format!("{name}: {counts}")),
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(Chain(&*error).to_string());
                Err(errors)
            }
        }
    }

    fn check_definitions(mut self, settings: Settings) -> Result<String, BoxError> {
        let runtime = tokio::runtime::Runtime::new()?;
        let checked = runtime.block_on(async {
            let (transports, ..) = self.transports(&settings.config, &mut Sockets::default());
            let backend = Backend::memory(&settings.config);
            let mut setup = self.into_setup(settings, backend);
            setup.transports = transports;
            Engine::check(setup).await
        });
        runtime.shutdown_background(); // an initializer may have left tasks running
        let engine = checked?;
        let registry = engine.registry();
        Ok(format!("{} actions, {} tasks", registry.actions().count(), registry.tasks().count()))
    }
}

fn check_redis(app: &str, settings: &Settings) -> Result<(), BoxError> {
    if let Some((url, _)) = redis_of(app, settings)? {
        phalanx_cluster::check_url(url).map_err(|error| format!("REDIS_URL cannot be used: {error}"))?;
    }
    Ok(())
}

/// The folders of the settings that this user cannot write to, and cannot create.
pub(crate) fn unwritable_folders(settings: &Settings) -> Vec<String> {
    let config = &settings.config;
    let log = config.log.file.then_some(("paths.log", config.paths.log.as_path()));
    let folders =
        [log, Some(("paths.pid", config.paths.pid.as_path())), Some(("paths.uploads", &*config.paths.uploads))];
    let named = folders.into_iter().flatten().filter(|(_, folder)| !folder.as_os_str().is_empty());
    named.filter_map(|(kind, folder)| Some(format!("{kind}: {}", unwritable(folder)?))).collect()
}

/// Why nothing can be written into a folder that exists, or that is to be created.
fn unwritable(folder: &Path) -> Option<String> {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let existing = full.ancestors().find(|ancestor| ancestor.exists())?;
    if !existing.is_dir() {
        return Some(format!("{} is no folder", existing.display()));
    }
    let error = access(existing, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("{} cannot be written: {error}", existing.display()))
}

//! The start of an application in a test.

use std::any::type_name;
use std::sync::Arc;

use phalanx_core::backend::{Backend, Clock, TaskStore};
use phalanx_core::config::Config;
use phalanx_core::error::Chain;
use phalanx_core::{Shutdown, States};

use super::{App, RunningApp, backend};
use crate::process::Sockets;
use crate::settings::{Settings, Sources};

/// The time of a node in a test.
pub(crate) enum TestTime {
    /// That of the embedded backend, by a clock of the test's, with a store of jobs of the test's.
    Own(Arc<dyn Clock>, Arc<dyn TaskStore>),
    /// That of the Redis at this address.
    Redis(String),
}

impl App {
    /// Reads the settings as a node does that is started in the environment `test`, without variables and `local.toml`;
    /// then changes them.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn settings_of_test(&mut self, change: impl FnOnce(&mut Config)) -> Result<Settings, String> {
        let sources = Sources::of_test(self.config_dir.clone());
        let settings = Settings::load(&sources, &self.sections, &mut self.definitions.states);
        let mut settings = settings.map_err(|error| error.to_string())?;
        if let Some(configure) = self.configure.take() {
            settings.change(configure).map_err(|error| error.to_string())?;
        }
        settings.change(change).map_err(|error| error.to_string())?;
        settings.node_id.clone_from(&settings.config.general.id);
        Ok(settings)
    }

    /// Replaces a section or a state.
    ///
    /// # Errors
    ///
    /// The application has none of this type.
    pub(crate) fn replace_state<T: Send + Sync + 'static>(&mut self, value: T) -> Result<(), String> {
        let states: &mut States = &mut self.definitions.states;
        if states.get::<T>().is_none() {
            let name = type_name::<T>();
            return Err(format!(
                "there is no section and no state of type {name} to replace: App::section::<{name}>(\"its name\") or \
                 App::state adds one"
            ));
        }
        states.insert(value);
        Ok(())
    }

    /// Runs `run` at the start of each thread that runs tasks.
    pub(crate) fn set_on_thread_start(&mut self, run: Arc<dyn Fn() + Send + Sync>) {
        self.on_thread_start = Some(run);
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// Why it does not, with all causes.
    pub(crate) async fn start_in_test(
        self,
        mut settings: Settings,
        time: TestTime,
        shutdown: Shutdown,
    ) -> Result<RunningApp, String> {
        let backend = match time {
            TestTime::Own(clock, jobs) => {
                Ok(Backend { tasks: Some(jobs), ..Backend::memory_with_clock(&settings.config, clock) })
            }
            TestTime::Redis(url) => {
                settings.redis_url = Some(url);
                backend(&self.name, &settings, phalanx_cluster::backend)
            }
        };
        let started = match backend {
            Ok(backend) => self.start_on(backend, settings, Sockets::default(), shutdown).await,
            Err(error) => Err(error),
        };
        started.map_err(|error| Chain(&error).to_string())
    }
}

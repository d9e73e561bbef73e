//! The application's own sections, decoded as the framework's are.

use std::sync::Arc;

use config::ConfigError;
use phalanx_core::States;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A section that the application defines.
#[derive(Clone)]
pub(crate) struct Section {
    pub(super) name: &'static str,
    pub(super) defaults: Value,
    read: Arc<ReadSection>,
}

/// Decodes a section, adds it to the states and returns its value for printing.
type ReadSection = dyn Fn(&config::Config, &mut States) -> Result<Value, String> + Send + Sync;

impl Section {
    pub(crate) fn of<T>(name: &'static str) -> Self
    where
        T: Serialize + DeserializeOwned + Default + Send + Sync + 'static,
    {
        let read = move |read: &config::Config, states: &mut States| {
            let section: T = decode(read, name)?;
            let value = serde_json::to_value(&section).unwrap_or_default();
            states.insert(section);
            Ok(value)
        };
        let defaults = serde_json::to_value(T::default()).unwrap_or_default();
        Self { name, defaults, read: Arc::new(read) }
    }

    pub(super) fn read(&self, read: &config::Config, states: &mut States) -> Result<Value, String> {
        (self.read)(read, states)
    }
}

/// Decodes a section from the merged sources.
pub(super) fn decode<T: DeserializeOwned + Default>(read: &config::Config, name: &str) -> Result<T, String> {
    let Ok(table) = read.get_table(name) else { return Ok(T::default()) };
    let value = config::Value::new(None, config::ValueKind::Table(table));
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = match error.inner() {
            ConfigError::Type { unexpected, expected, .. } => format!("not {unexpected}, but {expected}"),
            other => other.to_string(),
        };
        let path = error.path().to_string(); // `.` is the section itself
        format!("{}: {inner}", format!("{name}.{path}").trim_end_matches('.'))
    })
}

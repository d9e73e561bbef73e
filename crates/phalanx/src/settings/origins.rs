//! Where each setting comes from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::variables::collect_leaves;

/// The origin of a setting that nothing sets.
const DEFAULT: &str = "default";

/// The origin of a setting that the application sets.
const APPLICATION: &str = "application";

/// The last source that set each value, by its path. What is missing has its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(BTreeMap<String, String>);

/// A setting with its origin.
#[derive(Debug)]
pub(crate) struct SettingOrigin {
    pub(crate) path: String,
    /// As text for people, secrets hidden.
    pub(crate) value: String,
    pub(crate) origin: String,
}

impl Origins {
    pub(super) fn set(&mut self, path: impl Into<String>, origin: impl Into<String>) {
        self.0.insert(path.into(), origin.into());
    }

    /// Notes a value, and returns it.
    pub(super) fn of_option(&mut self, path: &str, origin: &str, value: String) -> String {
        self.set(path, origin);
        value
    }

    /// Notes every value of a file. A table without known keys is a map, whose keys are values of their own.
    pub(super) fn set_all(&mut self, table: &toml::Table, origin: &str) {
        for (path, _) in values(&json!(table)) {
            self.set(path, origin);
        }
    }

    /// Notes the values that the application has changed.
    pub(super) fn set_changed(&mut self, before: &Value, after: &Value) {
        let before: BTreeMap<_, _> = values(before).into_iter().collect();
        for (path, value) in values(after) {
            if before.get(&path) != Some(&value) {
                self.set(path, APPLICATION);
            }
        }
    }

    pub(super) fn of(&self, path: &str) -> &str {
        self.0.get(path).map_or(DEFAULT, String::as_str)
    }

    /// Each value of these settings, whose secrets are hidden, with its origin.
    pub(super) fn all(&self, settings: &Value) -> Vec<SettingOrigin> {
        let shown = |(path, value): (String, &Value)| SettingOrigin {
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            origin: self.of(&path).to_owned(),
            path,
        };
        values(settings).into_iter().map(shown).collect()
    }
}

/// The values of settings with their paths.
fn values(settings: &Value) -> Vec<(String, &Value)> {
    let mut leaves = Vec::new();
    collect_leaves(settings, "", &mut leaves);
    leaves
}

//! Settings, layer over layer: compiled defaults, `default.toml`, `<env>.toml`, `local.toml`, `PHALANX__SECTION__KEY`, the
//! well-known variables, the command line. Unknown keys are refused with the nearest name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{ConfigBuilder, File, FileFormat, builder::DefaultState};
use phalanx_core::config::{Config, Environment};
use phalanx_core::context::States;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command_line::Overrides;

/// What an environment variable of ours starts with.
const PREFIX: &str = "PHALANX__";

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The folder that was named, by the command line or the environment.
    pub named_dir: Option<PathBuf>,
    /// The folder to look in otherwise.
    pub default_dir: PathBuf,
    /// The node's id, if the command line names it.
    pub title: Option<String>,
    /// The world, if the command line names it.
    pub environment: Option<String>,
}

impl Sources {
    pub(crate) fn of_process(overrides: Overrides, app_dir: Option<PathBuf>) -> Self {
        // A variable that is no UTF-8 is none of ours.
        let variables: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            named_dir: overrides.config_dir.or_else(|| variables.get("PHALANX_CONFIG").map(PathBuf::from)),
            default_dir: app_dir.unwrap_or_else(|| "config".into()),
            title: overrides.title,
            environment: overrides.environment,
            variables,
        }
    }
}

/// The settings as they came out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The framework's own.
    pub config: Config,
    /// An application's sections, by name.
    pub sections: BTreeMap<String, Value>,
    /// The world.
    pub environment: Environment,
    /// Names the node for people and logs.
    pub node_id: String,
    /// Where the cluster's Redis is, if there is one.
    pub redis_url: Option<String>,
}

/// What is wrong with the settings, all of it.
#[derive(Debug)]
pub struct SettingsError(Vec<String>);

impl SettingsError {
    /// The sentences.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n       "))
    }
}

impl std::error::Error for SettingsError {}

/// A section of an application's own.
#[derive(Clone)]
pub(crate) struct Section {
    name: &'static str,
    defaults: Value,
    read: Arc<ReadSection>,
}

/// Decodes a section and puts it among the states.
type ReadSection = dyn Fn(&Value, &mut States) -> Result<(), String> + Send + Sync;

impl Section {
    pub(crate) fn of<T>(name: &'static str) -> Self
    where
        T: Serialize + DeserializeOwned + Default + Send + Sync + 'static,
    {
        let read = move |value: &Value, states: &mut States| {
            let section: T = serde_json::from_value(value.clone()).map_err(|error| format!("[{name}]: {error}"))?;
            states.insert(section);
            Ok(())
        };
        let defaults = serde_json::to_value(T::default()).unwrap_or_default();
        Self { name, defaults, read: Arc::new(read) }
    }

    pub(crate) fn insert(&self, settings: &Settings, states: &mut States) -> Result<(), String> {
        (self.read)(settings.sections.get(self.name).unwrap_or(&self.defaults), states)
    }
}

impl Settings {
    /// Reads everything and puts it together.
    ///
    /// # Errors
    ///
    /// Every unknown key with where it stands and the nearest name, or the first value that is not what it should be.
    pub(crate) fn load(sources: &Sources, sections: &[Section]) -> Result<Self, SettingsError> {
        let variable = |name: &str| sources.variables.get(name).filter(|value| !value.is_empty()).cloned();
        let environment = sources.environment.clone().or_else(|| variable("PHALANX_ENV"));
        let environment = environment.map_or_else(development, Environment);
        let known = known_settings(sections);
        let mut mistakes = Vec::new();
        let mut builder = config::Config::builder();
        for (path, text) in files(sources, &environment).map_err(|mistake| SettingsError(vec![mistake]))? {
            match text.parse::<toml::Table>() {
                Ok(table) => check_keys(&path, &toml::Value::Table(table), &known, "", &mut mistakes),
                Err(error) => mistakes.push(format!("{}: {}", path.display(), error.message())),
            }
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        builder = add_variables(builder, sources, &known, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(SettingsError(mistakes));
        }
        let one = |error: config::ConfigError| SettingsError(vec![error.to_string()]);
        let merged: Value = serde_json::to_value(known.clone()).unwrap_or_default();
        let read = builder.build().map_err(one)?;
        let config = read_config(&read).map_err(|mistake| SettingsError(vec![mistake]))?;
        let sections = sections.iter().map(|section| {
            let given = read.get::<Value>(section.name).unwrap_or(Value::Null);
            let defaults = merged.get(section.name).cloned().unwrap_or_default();
            (section.name.to_owned(), overlaid(defaults, given))
        });
        let sections = sections.collect();
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(SettingsError(mistakes));
        }
        let title = sources.title.clone().or_else(|| variable("PHALANX_TITLE"));
        let node_id = title.or_else(|| Some(config.general.id.clone()).filter(|id| !id.is_empty()));
        let node_id = node_id.unwrap_or_else(host_and_pid);
        Ok(Self { config, sections, environment, node_id, redis_url: variable("REDIS_URL") })
    }

    /// Settings of a test: no files, no variables.
    pub(crate) fn of(config: Config, sections: &[Section]) -> Self {
        let sections = sections.iter().map(|section| (section.name.to_owned(), section.defaults.clone())).collect();
        let node_id = if config.general.id.is_empty() { host_and_pid() } else { config.general.id.clone() };
        Self { config, sections, environment: Environment("test".to_owned()), node_id, redis_url: None }
    }

    /// The settings as TOML, secrets hidden.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = format!("# environment {}, node {}\n", self.environment.0, self.node_id);
        if let Some(url) = &self.redis_url {
            let _ = writeln!(text, "# REDIS_URL {}", without_password(url));
        }
        let mut all = serde_json::to_value(&self.config).unwrap_or_default();
        if let Value::Object(all) = &mut all {
            all.extend(self.sections.clone());
        }
        hide_secrets(&mut all);
        drop_nulls(&mut all);
        match toml::to_string(&all) {
            Ok(body) => text.push_str(&body),
            Err(error) => {
                let _ = writeln!(text, "# {error}");
            }
        }
        text
    }
}

/// Every key there is, with its default.
fn known_settings(sections: &[Section]) -> Value {
    let mut known = serde_json::to_value(Config::default()).unwrap_or_default();
    if let Value::Object(known) = &mut known {
        known.extend(sections.iter().map(|section| (section.name.to_owned(), section.defaults.clone())));
    }
    known
}

/// The files that exist, weakest first. A folder that was named must exist.
fn files(sources: &Sources, environment: &Environment) -> Result<Vec<(PathBuf, String)>, String> {
    let folder = match &sources.named_dir {
        Some(named) if !named.is_dir() => return Err(format!("the config folder {} does not exist", named.display())),
        Some(named) => named,
        None => &sources.default_dir,
    };
    let names = ["default.toml", &format!("{}.toml", environment.0), "local.toml"].map(|name| folder.join(name));
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in names.into_iter().filter(|path| seen.insert(path.clone())) {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(files)
}

fn check_keys(file: &Path, given: &toml::Value, known: &Value, prefix: &str, mistakes: &mut Vec<String>) {
    let (given, known) = match (given, known) {
        (toml::Value::Table(given), Value::Object(known)) => (given, known),
        (_, Value::Object(_)) => {
            return mistakes.push(format!("{}: {prefix} is a section, not a value", file.display()));
        }
        _ => return,
    };
    for (key, value) in given {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match known.get(key) {
            Some(known) => check_keys(file, value, known, &path, mistakes),
            None => {
                let near = nearest(key, known.keys().map(String::as_str));
                mistakes.push(format!("{}: there is no setting {path}{near}", file.display()));
            }
        }
    }
}

/// `; did you mean …?`, if something is near.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let far = known.map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match far {
        Some((far, name)) if far <= 2.max(key.len() / 3) => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// Variables win over files. Text is read by the type that stands in its place: lists have commas.
fn add_variables(
    mut builder: ConfigBuilder<DefaultState>,
    sources: &Sources,
    known: &Value,
    mistakes: &mut Vec<String>,
) -> ConfigBuilder<DefaultState> {
    let well_known = [("PORT", "web.port"), ("BIND", "web.bind"), ("RUST_LOG", "log.level")];
    let mut given: Vec<(String, &String)> = Vec::new();
    for (name, value) in &sources.variables {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let path = rest.to_ascii_lowercase().replace("__", ".");
            match known.pointer(&format!("/{}", path.replace('.', "/"))) {
                Some(place) if !place.is_object() => given.push((path, value)),
                _ => {
                    let near = nearest(&path, leaves(known, "").iter().map(String::as_str));
                    mistakes.push(format!("{name}: there is no setting {path}{near}"));
                }
            }
        }
    }
    for (name, path) in well_known {
        if let Some(value) = sources.variables.get(name).filter(|value| !value.is_empty()) {
            given.push((path.to_owned(), value));
        }
    }
    for (path, value) in given {
        let is_list = known.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_array);
        let set = match is_list {
            true => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                builder.clone().set_override(&path, items.map(str::to_owned).collect::<Vec<_>>())
            }
            false => builder.clone().set_override(&path, value.as_str()),
        };
        match set {
            Ok(set) => builder = set,
            Err(error) => mistakes.push(format!("{path}: {error}")),
        }
    }
    builder
}

fn leaves(known: &Value, prefix: &str) -> Vec<String> {
    let Value::Object(fields) = known else { return vec![prefix.to_owned()] };
    let name = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    fields.iter().flat_map(|(key, value)| leaves(value, &name(key))).collect()
}

/// Reads the framework's sections; an application's own stand beside them.
fn read_config(read: &config::Config) -> Result<Config, String> {
    fn section<T: DeserializeOwned + Default>(read: &config::Config, name: &str) -> Result<T, String> {
        let Ok(table) = read.get_table(name) else { return Ok(T::default()) };
        let value = config::Value::new(None, config::ValueKind::Table(table));
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inner = match error.inner() {
                config::ConfigError::Type { unexpected, expected, .. } => format!("not {unexpected}, but {expected}"),
                other => other.to_string(),
            };
            format!("{name}.{}: {inner}", error.path())
        })
    }
    Ok(Config {
        general: section(read, "general")?,
        cluster: section(read, "cluster")?,
        redis: section(read, "redis")?,
        web: section(read, "web")?,
        websocket: section(read, "websocket")?,
        rooms: section(read, "rooms")?,
        admin: section(read, "admin")?,
        log: section(read, "log")?,
        paths: section(read, "paths")?,
    })
}

/// Puts what was given over the defaults, key by key.
fn overlaid(defaults: Value, given: Value) -> Value {
    match (defaults, given) {
        (Value::Object(mut defaults), Value::Object(given)) => {
            for (key, value) in given {
                let before = defaults.remove(&key).unwrap_or_default();
                defaults.insert(key, overlaid(before, value));
            }
            Value::Object(defaults)
        }
        (defaults, Value::Null) => defaults,
        (Value::Number(_), Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        (Value::Bool(_), Value::String(text)) => text.parse().map_or(Value::String(text), Value::Bool),
        (_, given) => given,
    }
}

/// Hides whatever stands under a telling name, and passwords in addresses.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_empty = value.as_str() == Some("") || value.is_null();
                if is_secret(key) && !is_empty {
                    *value = "[HIDDEN]".into();
                } else {
                    hide_secrets(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::String(text) => *text = without_password(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let telling = ["secret", "token", "password", "passwd", "api_key", "private_key", "credential"];
    telling.iter().any(|word| key.contains(word)) && key != "secret_params" // that one holds names
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

/// `redis://user:secret@host` reads `redis://user:***@host`.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let (login, host) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    };
    hidden().unwrap_or_else(|| url.to_owned())
}

fn host_and_pid() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "node" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

/// The world a node lives in unless somebody says otherwise.
fn development() -> Environment {
    Environment("development".to_owned())
}

#[cfg(test)]
mod tests;

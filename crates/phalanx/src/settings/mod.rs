//! Settings in layers, weakest first: compiled defaults, `default.toml`, `<env>.toml`, `local.toml`,
//! `PHALANX__SECTION__KEY`, the well-known variables, the command line. Unknown keys are errors that name the nearest one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use config::{File, FileFormat};
use phalanx_core::States;
use phalanx_core::config::{Config, Environment};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::command::{GivenRoles, Overrides};

mod origins;
mod secrets;
mod section;
mod variables;

pub(crate) use origins::{Origins, SettingOrigin};
pub(crate) use secrets::without_password;
pub(crate) use section::Section;
pub(crate) use variables::list_items;

/// The sources of settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// The folder that the command line, `PHALANX_CONFIG` or the application names.
    pub(crate) named_dir: Option<PathBuf>,
    /// The folder to read otherwise; it need not exist.
    pub(crate) default_dir: PathBuf,
    /// The node's id, if the command line sets it.
    pub(crate) title: Option<String>,
    /// The environment (`development`, `test`, …), if the command line sets it.
    pub(crate) environment: Option<String>,
    /// The roles, if the command line sets them.
    pub(crate) roles: Option<GivenRoles>,
    /// Whether `local.toml` is left out, which is one machine's own.
    pub(crate) skips_local: bool,
}

impl Sources {
    pub(crate) fn of_process(overrides: Overrides, app_dir: Option<PathBuf>) -> Self {
        // All names and values of ours are UTF-8; others are skipped.
        let variables: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            named_dir: overrides
                .config_dir
                .or_else(|| {
                    let named = variables.get("PHALANX_CONFIG").filter(|folder| !folder.is_empty());
                    named.map(PathBuf::from)
                })
                .or(app_dir),
            default_dir: "config".into(),
            title: overrides.title,
            environment: overrides.environment,
            roles: overrides.roles,
            skips_local: false,
            variables,
        }
    }

    /// Those of a test: the application's files alone, in the environment `test`, so that the variables and `local.toml` of
    /// a machine change nothing.
    #[cfg(feature = "testing")]
    pub(crate) fn of_test(app_dir: Option<PathBuf>) -> Self {
        Self {
            variables: BTreeMap::new(),
            named_dir: app_dir,
            default_dir: "config".into(),
            title: None,
            environment: Some("test".to_owned()),
            roles: None,
            skips_local: true,
        }
    }
}

/// The merged settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The framework's own sections.
    pub(crate) config: Config,
    /// The application's sections, by name.
    pub(crate) sections: BTreeMap<String, Value>,
    /// The environment: `development`, `test`, `production`, …
    pub(crate) environment: Environment,
    /// The node's id for operators and logs.
    pub(crate) node_id: String,
    /// The address of the cluster's Redis, if there is one.
    pub(crate) redis_url: Option<String>,
    /// Where each value comes from.
    pub(crate) origins: Origins,
}

/// Every error in the settings.
#[derive(Debug)]
pub(crate) struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n       "))
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads all sources and merges them. Each section of the application becomes one of its states.
    ///
    /// # Errors
    ///
    /// Every unknown key with its file or variable and the nearest name; if there is none, the first invalid value of each
    /// section.
    pub(crate) fn load(sources: &Sources, sections: &[Section], states: &mut States) -> Result<Self, SettingsError> {
        let variable = |name: &str| sources.variables.get(name).filter(|value| !value.is_empty()).cloned();
        let mut origins = Origins::default();
        let environment = match (&sources.environment, variable("PHALANX_ENV")) {
            (Some(given), _) => origins.of_option(ENVIRONMENT, "--env", given.clone()),
            (None, Some(set)) => origins.of_option(ENVIRONMENT, "PHALANX_ENV", set),
            (None, None) => DEVELOPMENT.to_owned(),
        };
        let environment = Environment(environment);
        let mut errors = Vec::new();
        let known = known_settings(sections, &mut errors);
        let mut builder = config::Config::builder();
        for section in sections {
            let defaults = serde_json::from_value::<config::Value>(section.defaults.clone()).unwrap_or_default();
            builder = builder.set_default(section.name, defaults).map_err(one)?;
        }
        for (path, text) in files(sources, &environment).map_err(|error| SettingsError(vec![error]))? {
            match text.parse::<toml::Table>() {
                Ok(table) => {
                    origins.set_all(&table, &path.display().to_string());
                    check_keys(&path, &toml::Value::Table(table), &known, "", &mut errors);
                }
                Err(error) => errors.push(format!("{}: {}", path.display(), error.message())),
            }
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        builder = variables::add(builder, &sources.variables, &known, &mut origins, &mut errors);
        if let Some(GivenRoles(roles)) = &sources.roles {
            let names: Vec<String> = roles.iter().map(|role| role.name().to_owned()).collect();
            builder = builder.set_override(ROLES, names).map_err(one)?;
            origins.set(ROLES, ROLES_OPTION);
        }
        if !errors.is_empty() {
            return Err(SettingsError(errors));
        }
        let read = builder.build().map_err(one)?;
        let config = read_config(&read, &mut errors);
        let sections = read_sections(sections, &read, states, &mut errors);
        errors.extend(config.mistakes());
        let uploads = &config.paths.uploads;
        if !uploads.as_os_str().is_empty() {
            errors.extend(check_folder("paths.uploads", uploads).err());
        }
        if !errors.is_empty() {
            return Err(SettingsError(errors));
        }
        let node_id = match (&sources.title, variable("PHALANX_TITLE"), config.general.id.as_str()) {
            (Some(title), ..) => origins.of_option(NODE, "--title", title.clone()),
            (None, Some(title), _) => origins.of_option(NODE, "PHALANX_TITLE", title),
            (None, None, "") => host_and_pid(),
            (None, None, id) => {
                let origin = origins.of("general.id").to_owned();
                origins.of_option(NODE, &origin, id.to_owned())
            }
        };
        let redis_url = variable("REDIS_URL").map(|url| origins.of_option(REDIS_URL, REDIS_URL, url));
        Ok(Self { config, sections, environment, node_id, redis_url, origins })
    }

    /// Whether the command line sets the roles.
    pub(crate) fn has_given_roles(&self) -> bool {
        self.origins.of(ROLES) == ROLES_OPTION
    }

    /// Settings of a test: no files, no variables, the application's sections by default.
    ///
    /// # Errors
    ///
    /// Every setting that is out of range.
    pub(crate) fn of(config: Config, sections: &[Section], states: &mut States) -> Result<Self, SettingsError> {
        let mut errors = config.mistakes();
        let sections = read_sections(sections, &config::Config::default(), states, &mut errors);
        if !errors.is_empty() {
            return Err(SettingsError(errors));
        }
        let node_id = if config.general.id.is_empty() { host_and_pid() } else { config.general.id.clone() };
        Ok(Self {
            config,
            sections,
            environment: Environment("test".to_owned()),
            node_id,
            redis_url: None,
            origins: Origins::default(),
        })
    }

    /// The node's id as a file name, with other characters than letters, digits, `.`, `_` and `-` replaced.
    pub(crate) fn file_stem(&self) -> String {
        let fit = |character: char| match character {
            ':' => '-',
            '.' | '_' | '-' => character,
            _ if character.is_alphanumeric() => character,
            _ => '_',
        };
        self.node_id.chars().map(fit).collect()
    }

    /// Lets the application change what was read.
    ///
    /// # Errors
    ///
    /// Every setting that is out of range then.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), SettingsError> {
        let before = serde_json::to_value(&self.config).unwrap_or_default();
        change(&mut self.config);
        self.origins.set_changed(&before, &serde_json::to_value(&self.config).unwrap_or_default());
        let mistakes = self.config.mistakes();
        if mistakes.is_empty() { Ok(()) } else { Err(SettingsError(mistakes)) }
    }

    /// Each value with its origin, secrets hidden.
    pub(crate) fn with_origins(&self) -> Vec<SettingOrigin> {
        let values = [
            (ENVIRONMENT, self.environment.0.clone()),
            (NODE, self.node_id.clone()),
            (REDIS_URL, self.redis_url.as_deref().map(without_password).unwrap_or_default()),
        ];
        let of_process = values.map(|(path, value)| {
            let origin = self.origins.of(path).to_owned();
            SettingOrigin { path: path.to_owned(), value, origin }
        });
        of_process.into_iter().chain(self.origins.all(&self.shown())).collect()
    }

    /// All sections, secrets hidden.
    fn shown(&self) -> Value {
        let mut all = serde_json::to_value(&self.config).unwrap_or_default();
        if let Value::Object(all) = &mut all {
            all.extend(self.sections.clone());
        }
        secrets::hide(&mut all);
        drop_nulls(&mut all);
        all
    }

    /// The settings as TOML, secrets hidden.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = format!("# environment {}, node {}\n", self.environment.0, self.node_id);
        if let Some(url) = &self.redis_url {
            let _ = writeln!(text, "# REDIS_URL {}", secrets::without_password(url));
        }
        match toml::to_string(&self.shown()) {
            Ok(body) => text.push_str(&body),
            Err(error) => {
                let _ = writeln!(text, "# {error}");
            }
        }
        text
    }
}

/// Every known key, with its default.
fn known_settings(sections: &[Section], errors: &mut Vec<String>) -> Value {
    let mut known = match serde_json::to_value(Config::default()) {
        Ok(Value::Object(known)) => known,
        _ => Map::new(),
    };
    for section in sections {
        if known.insert(section.name.to_owned(), section.defaults.clone()).is_some() {
            errors.push(format!("the application's section [{}] has the name of another", section.name));
        }
    }
    Value::Object(known)
}

fn one(error: config::ConfigError) -> SettingsError {
    SettingsError(vec![error.to_string()])
}

/// The error if a folder that was named does not exist. `kind` is the name of its setting.
pub(crate) fn check_folder(kind: &str, folder: &Path) -> Result<(), String> {
    if folder.is_dir() {
        return Ok(());
    }
    let problem = if folder.exists() { "is no folder" } else { "does not exist" };
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    Err(format!("{kind}: {} {problem}", full.display()))
}

/// The files that exist, weakest first. A folder that was named must exist.
fn files(sources: &Sources, environment: &Environment) -> Result<Vec<(PathBuf, String)>, String> {
    let folder = match &sources.named_dir {
        Some(named) => {
            check_folder("the config folder", named)?;
            named
        }
        None => &sources.default_dir,
    };
    let named = format!("{}.toml", environment.0);
    let local = (!sources.skips_local).then_some("local.toml");
    let names = ["default.toml", &named].into_iter().chain(local).map(|name| folder.join(name));
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in names.filter(|path| seen.insert(path.clone())) {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(files)
}

fn check_keys(file: &Path, given: &toml::Value, known: &Value, prefix: &str, errors: &mut Vec<String>) {
    let (given, known) = match (given, known) {
        // A table without known keys is a map, which takes any key.
        (toml::Value::Table(given), Value::Object(known)) if !known.is_empty() => (given, known),
        (toml::Value::Table(_), Value::Object(_)) => return,
        (_, Value::Object(_)) => {
            return errors.push(format!("{}: {prefix} is a section, not a value", file.display()));
        }
        _ => return,
    };
    for (key, value) in given {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match known.get(key) {
            Some(known) => check_keys(file, value, known, &path, errors),
            None if prefix == LIMITS => {} // the name of a limit, which the boot checks
            None => {
                let near = nearest(key, known.keys().map(String::as_str));
                errors.push(format!("{}: there is no setting {path}{near}", file.display()));
            }
        }
    }
}

/// `; did you mean …?`, if a known name is near.
pub(crate) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let far = known.map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match far {
        Some((far, name)) if far <= 2.max(key.len() / 3) => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// Decodes the framework's sections.
fn read_config(read: &config::Config, errors: &mut Vec<String>) -> Config {
    fn section<T: DeserializeOwned + Default>(read: &config::Config, name: &str, errors: &mut Vec<String>) -> T {
        section::decode(read, name).unwrap_or_else(|error| {
            errors.push(error);
            T::default()
        })
    }
    Config {
        general: section(read, "general", errors),
        cluster: section(read, "cluster", errors),
        redis: section(read, "redis", errors),
        web: section(read, "web", errors),
        websocket: section(read, "websocket", errors),
        session: section(read, "session", errors),
        limits: section(read, LIMITS, errors),
        rooms: section(read, "rooms", errors),
        tasks: section(read, "tasks", errors),
        admin: section(read, "admin", errors),
        log: section(read, "log", errors),
        paths: section(read, "paths", errors),
    }
}

/// Decodes the application's sections and adds each to its states.
fn read_sections(
    sections: &[Section],
    read: &config::Config,
    states: &mut States,
    errors: &mut Vec<String>,
) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for section in sections {
        match section.read(read, states) {
            Ok(value) => drop(values.insert(section.name.to_owned(), value)),
            Err(error) => errors.push(error),
        }
    }
    values
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

fn host_and_pid() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "node" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

/// The default environment.
const DEVELOPMENT: &str = "development";

/// The section that has the limits of the application too, by their names.
const LIMITS: &str = "limits";

/// Settings that are in no section, by their names among the origins.
const ENVIRONMENT: &str = "environment";
const NODE: &str = "node";
const REDIS_URL: &str = "REDIS_URL";

/// The setting that an option overrides, and the option.
const ROLES: &str = "general.roles";
const ROLES_OPTION: &str = "--roles";

#[cfg(test)]
mod tests;

//! Settings from the environment: `PHALANX__SECTION__KEY`, and the well-known variables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use config::ConfigBuilder;
use config::builder::DefaultState;
use serde_json::Value;

use super::{LIMITS, Origins, nearest};

/// The prefix of our environment variables.
const PREFIX: &str = "PHALANX__";

/// Variables without our prefix, and the settings that they override.
const WELL_KNOWN: [(&str, &str); 4] =
    [("PORT", "web.port"), ("BIND", "web.bind"), ("ALLOWED_HOSTS", "web.allowed_hosts"), ("RUST_LOG", "log.level")];

/// Puts variables over files. Text is parsed by the type of its setting; lists are separated by commas.
pub(super) fn add(
    mut builder: ConfigBuilder<DefaultState>,
    variables: &BTreeMap<String, String>,
    known: &Value,
    origins: &mut Origins,
    errors: &mut Vec<String>,
) -> ConfigBuilder<DefaultState> {
    let mut leaves = Vec::new();
    collect_leaves(known, "", &mut leaves);
    let paths: Vec<String> = leaves.into_iter().map(|(path, _)| path).collect();
    for (path, value, variable) in given(variables, &paths, errors) {
        let path = &*path;
        origins.set(path, variable);
        let is_list = known.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_array);
        let set = if is_list {
            builder.clone().set_override(path, list_items(value).map(str::to_owned).collect::<Vec<_>>())
        } else {
            builder.clone().set_override(path, value)
        };
        match set {
            Ok(set) => builder = set,
            Err(error) => errors.push(format!("{path}: {error}")),
        }
    }
    builder
}

/// The items of a list as a variable or an option has it.
pub(crate) fn list_items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The settings that variables set, their values and the variables, weakest first.
fn given<'a>(
    variables: &'a BTreeMap<String, String>,
    paths: &'a [String],
    errors: &mut Vec<String>,
) -> Vec<(Cow<'a, str>, &'a str, &'a str)> {
    let mut given = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path = rest.replace("__", ".");
        match paths.iter().find(|known| known.eq_ignore_ascii_case(&path)) {
            Some(known) => given.push((Cow::Borrowed(known.as_str()), value.as_str(), name.as_str())),
            None => {
                let path = path.to_ascii_lowercase();
                if path.strip_prefix(LIMITS).is_some_and(|rest| rest.starts_with('.')) {
                    given.push((Cow::Owned(path), value.as_str(), name.as_str()));
                    continue;
                }
                let near = nearest(&path, paths.iter().map(String::as_str));
                errors.push(format!("{name}: there is no setting {path}{near}"));
            }
        }
    }
    for (name, path) in WELL_KNOWN {
        let value = variables.get(name).filter(|value| !value.is_empty());
        given.extend(value.map(|value| (Cow::Borrowed(path), value.as_str(), name)));
    }
    given
}

/// Collects all values with their paths.
pub(super) fn collect_leaves<'a>(known: &'a Value, path: &str, leaves: &mut Vec<(String, &'a Value)>) {
    let Value::Object(fields) = known else { return leaves.push((path.to_owned(), known)) };
    for (key, value) in fields {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect_leaves(value, &path, leaves);
    }
}

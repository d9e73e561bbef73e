//! Settings from the environment: `PHALANX__SECTION__KEY`, and the well-known variables.

use std::collections::BTreeMap;

use config::ConfigBuilder;
use config::builder::DefaultState;
use serde_json::Value;

use super::nearest;

/// What an environment variable of ours starts with.
const PREFIX: &str = "PHALANX__";

/// Variables without our prefix, and the settings that they win over.
const WELL_KNOWN: [(&str, &str); 4] =
    [("PORT", "web.port"), ("BIND", "web.bind"), ("ALLOWED_HOSTS", "web.allowed_hosts"), ("RUST_LOG", "log.level")];

/// Puts variables over files. Text is read by the type that stands in its place: lists have commas.
pub(super) fn add(
    mut builder: ConfigBuilder<DefaultState>,
    variables: &BTreeMap<String, String>,
    known: &Value,
    mistakes: &mut Vec<String>,
) -> ConfigBuilder<DefaultState> {
    let mut places = Vec::new();
    collect_leaves(known, "", &mut places);
    for (path, value) in given(variables, &places, mistakes) {
        let is_list = known.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_array);
        let set = match is_list {
            true => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                builder.clone().set_override(path, items.map(str::to_owned).collect::<Vec<_>>())
            }
            false => builder.clone().set_override(path, value),
        };
        match set {
            Ok(set) => builder = set,
            Err(error) => mistakes.push(format!("{path}: {error}")),
        }
    }
    builder
}

/// The settings that variables name, weakest first.
fn given<'a>(
    variables: &'a BTreeMap<String, String>,
    places: &'a [String],
    mistakes: &mut Vec<String>,
) -> Vec<(&'a str, &'a str)> {
    let mut given = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path = rest.replace("__", ".");
        match places.iter().find(|place| place.eq_ignore_ascii_case(&path)) {
            Some(place) => given.push((place.as_str(), value.as_str())),
            None => {
                let path = path.to_ascii_lowercase();
                let near = nearest(&path, places.iter().map(String::as_str));
                mistakes.push(format!("{name}: there is no setting {path}{near}"));
            }
        }
    }
    for (name, path) in WELL_KNOWN {
        let value = variables.get(name).filter(|value| !value.is_empty());
        given.extend(value.map(|value| (path, value.as_str())));
    }
    given
}

/// The paths of all values.
pub(super) fn collect_leaves(known: &Value, path: &str, leaves: &mut Vec<String>) {
    let Value::Object(fields) = known else { return leaves.push(path.to_owned()) };
    for (key, value) in fields {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect_leaves(value, &path, leaves);
    }
}

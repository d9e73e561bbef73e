//! The command line of an application: what commands print, for people and for programs, and how they end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use phalanx_testkit::run;
use serde_json::Value;

mod cluster_views;
mod doctor;
mod own;
mod roles;
mod start_check;
mod terminal;

/// The documents with `--json`, as the guide shows them.
fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/phalanx/src/command/samples")
}

/// Runs `tour`.
async fn tour(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run("tour", arguments, environment).await
}

/// Runs a command with success and nothing on stderr; returns what it prints.
async fn print(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = tour(arguments, environment).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command with `--json`; its document has the keys of the sample.
async fn document(arguments: &[&str], environment: &[(&str, &str)], sample: &str) -> Value {
    let text = print(&[arguments, &["--json"]].concat(), environment).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_same_keys(&document, sample);
    document
}

pub(crate) fn assert_same_keys(document: &Value, sample: &str) {
    let path = samples().join(format!("{sample}.json"));
    let sample: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(keys(document), keys(&sample), "{}: {document}", path.display());
}

/// The paths of all keys; the items of a list have one path.
fn keys(value: &Value) -> BTreeSet<String> {
    let prefixed = |prefix: &str, value: &Value| -> Vec<String> {
        let below = keys(value).into_iter().map(|key| format!("{prefix}{key}"));
        below.chain([prefix.to_owned()]).collect()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| prefixed(&format!(".{key}"), value)).collect(),
        Value::Array(items) => items.iter().flat_map(|item| prefixed("[]", item)).filter(|key| key != "[]").collect(),
        _ => BTreeSet::new(),
    }
}

/// Runs a command that fails; returns its reason.
async fn fail(code: i32, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = tour(arguments, environment).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

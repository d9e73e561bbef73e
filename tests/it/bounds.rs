//! The table of bounds in the operating guide is true: its defaults, its shares and its labels.

use std::collections::BTreeMap;
use std::path::Path;

use phalanx::config::{Config, Redis, SessionSettings};
use phalanx::extend::backend::MAX_SESSIONS_OF_USER;
use serde_json::Value;

use crate::imports::sources;

const PAGE: &str = include_str!("../../crates/phalanx/src/guide/operating.md");

/// Settings with a number, a size or a time that bound nothing that a client takes.
const NO_BOUNDS: [&str; 8] = [
    "web.port",
    "web.address_share",
    "web.fingerprint_lifetime",
    "web.file_max_age",
    "websocket.drain",
    "session.idle",
    "session.absolute",
    "limits.ipv6_prefix",
];

struct Row {
    default: String,
    has_share: bool,
    label: String,
}

/// The rows of the table, by setting.
fn table() -> BTreeMap<String, Row> {
    let section = PAGE.split("## Bounds\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [setting, default, share, _, label] = cells[..] else { panic!("not five cells: {line}") };
        let row = Row { default: default.into(), has_share: share.starts_with("share"), label: label.into() };
        (setting.to_owned(), row)
    })
    .collect()
}

/// The settings of a section, as they are written.
fn settings() -> BTreeMap<String, String> {
    let config = serde_json::to_value(Config::default()).unwrap();
    let mut all = BTreeMap::new();
    for section in ["web", "websocket", "session", "limits", "general", "tasks"] {
        for (name, value) in config[section].as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            all.insert(format!("{section}.{name}"), text);
        }
    }
    all.insert("session.value".to_owned(), SessionSettings::MAX_VALUE_BYTES.to_string());
    all.insert("session.updated".to_owned(), SessionSettings::MAX_UPDATED.to_string());
    all.insert("session.ended".to_owned(), SessionSettings::MAX_ENDED.to_string());
    all.insert("session.of_user".to_owned(), MAX_SESSIONS_OF_USER.to_string());
    all.insert("redis.shared_calls".to_owned(), Redis::MAX_SHARED_CALLS.to_string());
    all.insert("cluster.commands".to_owned(), phalanx_supervisor::MAX_COMMANDS.to_string());
    all
}

fn is_amount(value: &str) -> bool {
    let number = value.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    number.parse::<f64>().is_ok()
}

#[test]
fn the_table_has_every_bound_of_a_client_with_its_default() {
    let (table, settings) = (table(), settings());
    for (setting, row) in &table {
        assert_eq!(settings.get(setting), Some(&row.default), "{setting}");
    }
    let bounds = settings.iter().filter(|(name, value)| {
        !name.starts_with("general.")
            && !name.starts_with("tasks.")
            && is_amount(value)
            && !NO_BOUNDS.contains(&name.as_str())
    });
    let missing: Vec<_> = bounds.map(|(name, _)| name).filter(|name| !table.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_table_names_the_labels_and_the_shares_of_the_sources() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let code: String = ["core", "server", "cluster", "tasks", "supervisor"]
        .into_iter()
        .flat_map(|name| sources(&crates.join(name).join("src")))
        .map(|file| file.text)
        .collect();
    for (setting, row) in table() {
        let label = if row.label.is_empty() { &setting } else { &row.label };
        assert_eq!(code.contains(&format!("\"{label}\"")), !row.label.is_empty(), "{setting}: {}", row.label);
        assert_eq!(code.contains(&format!("\"{setting} of an address\"")), row.has_share, "{setting}");
    }
}

#[test]
fn settings_are_compared_as_they_are_written() {
    assert_eq!(Value::from(10_000).to_string(), "10000");
    assert!(
        is_amount("256MiB") && is_amount("0.875") && is_amount("1m") && !is_amount("0.0.0.0") && !is_amount("/api")
    );
}

//! The floors of the core crate: imports point down.
//!
//! `cargo test -p phalanx-tests --test it floors:: -- --nocapture` prints the circles of modules; with `CORE_SRC` they are
//! those of another checkout's `crates/core/src`.

use std::path::PathBuf;

use crate::imports::{SourceFile, circles, edges, sources};

/// The floors, lowest first, with the modules at the top of the crate that stand on each.
pub(crate) const FLOORS: [(&str, &[&str]); 4] = [
    (
        "ground",
        &[
            "address_rate",
            "answer",
            "backend",
            "config",
            "cookie",
            "cut",
            "error",
            "files",
            "future",
            "gap_pace",
            "health",
            "id",
            "job",
            "lease_state",
            "memory",
            "metrics",
            "operation",
            "origin",
            "params",
            "protocol",
            "shutdown",
            "units",
        ],
    ),
    (
        "clients",
        &["cache", "connection", "connections", "event", "locks", "rate_limit", "remote", "rooms", "tags", "topics"],
    ),
    (
        "author",
        &[
            "action",
            "call",
            "caller",
            "cluster",
            "context",
            "group",
            "guard",
            "hooks",
            "initializer",
            "layer",
            "limit",
            "node",
            "node_report",
            "parameter",
            "registry",
            "remote_method",
            "session",
            "state",
            "states",
            "task",
        ],
    ),
    ("engine", &["dispatch", "engine", "lease", "transport", "verb"]),
];

/// Most files that may import each other in a circle: a type, a trait that takes it, and the data between them.
const LARGEST_CIRCLE: usize = 3;

fn core_src() -> PathBuf {
    std::env::var_os("CORE_SRC")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/core/src"), PathBuf::from)
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, modules)| modules.contains(&module))
}

/// One line for each import that points up, or that hides where it points.
fn violations(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.module.is_empty()) {
        let Some(own) = floor_of(&file.module[0]) else {
            found.push(format!("{}: its module stands on no floor", file.file));
            continue;
        };
        for import in file.imports() {
            let at = format!("{}:{}: {}", file.file, import.line, import.path.join("::"));
            match import.path.first().map(|first| floor_of(first)) {
                Some(Some(floor)) if floor > own => {
                    found.push(format!("{at} points up, from {} to {}", FLOORS[own].0, FLOORS[floor].0));
                }
                Some(Some(_)) => {}
                Some(None) | None => found.push(format!("{at} is a re-export of the root: name its module")),
            }
        }
    }
    found
}

#[test]
fn imports_of_core_point_down() {
    let found = violations(&sources(&core_src()));
    assert!(found.is_empty(), "{} imports break a floor:\n{}", found.len(), found.join("\n"));
}

#[test]
fn an_import_that_points_up_is_found_by_file_line_and_floor() {
    let files = [
        SourceFile::new("lib.rs", "pub use engine::Engine;"),
        SourceFile::new(
            "rooms/mod.rs",
            "use std::fmt;\nuse crate::connection::Connection;\nuse crate::{id::X, node::Node};",
        ),
        SourceFile::new("rooms/join.rs", "use super::super::engine::Engine;\nuse crate::Context;"),
        SourceFile::new("attic.rs", ""),
    ];
    assert_eq!(
        violations(&files),
        [
            "rooms/mod.rs:3: node::Node points up, from clients to author",
            "rooms/join.rs:1: engine::Engine points up, from clients to engine",
            "rooms/join.rs:2: Context is a re-export of the root: name its module",
            "attic.rs: its module stands on no floor",
        ]
    );
}

#[test]
fn few_modules_of_core_import_each_other_in_a_circle() {
    let files = sources(&core_src());
    let all = circles(&edges(&files));
    let largest = all.first().map_or(0, |circle| circle.len());
    println!("{} files, {} circles, the largest of {largest} files", files.len(), all.len());
    for circle in &all {
        println!("  {}", circle.iter().cloned().collect::<Vec<_>>().join(" "));
    }
    assert!(largest <= LARGEST_CIRCLE, "{largest} files import each other: {:?}", all[0]);
}

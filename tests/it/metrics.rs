//! The metrics in the operating guide are those that a node renders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use phalanx_testkit::Process;

use crate::client::{Socket, get};

const PAGE: &str = include_str!("../../crates/phalanx/src/guide/operating.md");

/// The metric names between two of these marks.
fn names(text: &str, mark: char) -> BTreeSet<String> {
    let is_name = |word: &&str| {
        let ours = word.starts_with("phalanx_") || word.starts_with("process_");
        ours && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    text.split(mark).filter(is_name).map(str::to_owned).collect()
}

/// The metric names in string literals of a folder's sources.
fn names_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.extend(names(&fs::read_to_string(&path).unwrap(), '"'));
        }
    }
}

#[test]
fn the_operating_guide_lists_every_metric() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut used = BTreeSet::new();
    for name in ["core", "cluster", "server", "tasks", "supervisor", "phalanx"] {
        names_in(&crates.join(name).join("src"), &mut used);
    }
    assert_eq!(names(PAGE, '`'), used);
}

#[tokio::test]
async fn a_node_renders_metrics_under_the_names_of_the_guide() {
    let node = Process::start("tour", &[("PHALANX__LOG__FILE", "true")]).await;
    let mut socket = Socket::join(node.addr, "defaultRoom").await;
    socket.request(r#"{"event":"say","room":"defaultRoom","message":"hello"}"#).await;
    get(node.addr, "/api/status").await;
    let rendered = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    let samples = rendered.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let names: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).map(without_part).collect();
    assert!(names.len() > 10, "{rendered}");
    for name in names {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
    for sink in ["stderr", "file"] {
        let line = format!("phalanx_log_lines_dropped_total{{sink=\"{sink}\"}} 0");
        assert!(rendered.contains(&line), "{rendered}");
    }
    assert!(rendered.contains("phalanx_actions_total{action=\"status\",version=\"1\",outcome=\"ok\"} 1"), "{rendered}");
}

/// The name of a histogram, which is rendered as three metrics.
fn without_part(name: &str) -> &str {
    let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    part.unwrap_or(name)
}

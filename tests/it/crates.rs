//! Rules for dependencies between crates, licences and sources, checked against `cargo metadata`.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use licence::allowed;

/// Crates that no application is built with.
const DEV: [&str; 3] = ["phalanx-bench", "phalanx-testkit", "phalanx-tests"];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn core_names_no_socket_and_no_redis() {
    for foreign in ["axum", "hyper", "redis", "tungstenite"] {
        let named: Vec<_> = named_by("phalanx-core", &[Kind::Normal]).filter(|name| name.contains(foreign)).collect();
        assert!(named.is_empty(), "phalanx-core depends on {named:?}");
    }
}

#[test]
fn server_cluster_and_tasks_never_name_each_other() {
    let sides = ["phalanx-server", "phalanx-cluster", "phalanx-tasks"];
    for (one, other) in sides.iter().flat_map(|one| sides.iter().map(move |other| (one, other))) {
        assert!(!named_by(one, &Kind::ALL).any(|name| name == *other), "{one} names {other}");
    }
}

#[test]
fn the_supervisor_depends_on_no_crate_of_the_workspace_and_on_no_runtime() {
    let own: BTreeSet<&str> = members().collect();
    let named: Vec<_> = named_by("phalanx-supervisor", &Kind::ALL).collect();
    assert!(!named.is_empty(), "there is no such crate");
    let refused: Vec<_> = named.into_iter().filter(|name| own.contains(name) || *name == "tokio").collect();
    assert!(refused.is_empty(), "phalanx-supervisor depends on {refused:?}");
}

#[test]
fn axum_is_named_by_server_facade_and_bench_alone() {
    let naming: BTreeSet<_> =
        members().filter(|member| named_by(member, &Kind::ALL).any(|name| name.starts_with("axum"))).collect();
    assert_eq!(naming, BTreeSet::from(["phalanx", "phalanx-bench", "phalanx-server"]));
}

#[test]
fn nothing_an_application_is_built_with_needs_the_testkit_or_the_bench() {
    for member in members().filter(|member| !DEV.contains(member)) {
        let named: Vec<_> = named_by(member, &[Kind::Normal, Kind::Build]).filter(|name| DEV.contains(name)).collect();
        assert!(named.is_empty(), "{member} depends on {named:?}");
    }
}

#[test]
fn every_crate_inherits_the_lints_of_the_workspace() {
    for package in workspace() {
        let manifest = toml_of(Path::new(text(package, "manifest_path")));
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{} lacks `lints.workspace = true`", text(package, "name"));
    }
}

#[test]
fn every_licence_an_application_is_built_with_is_on_the_list() {
    let deny = toml_of(&root().join("deny.toml"));
    let list = deny["licenses"]["allow"].as_array().unwrap();
    let list: Vec<&str> = list.iter().map(|id| id.as_str().unwrap()).collect();
    let refused: Vec<_> = shipped()
        .into_iter()
        .map(|package| (text(package, "name"), package["license"].as_str().unwrap_or("none")))
        .filter(|(_, licence)| !allowed(licence, &list))
        .collect();
    assert!(refused.is_empty(), "deny.toml does not allow {refused:?}");
}

#[test]
fn every_package_comes_from_this_workspace_or_from_crates_io() {
    let here = |package: &Value| Path::new(text(package, "manifest_path")).starts_with(root());
    for package in packages() {
        match package["source"].as_str() {
            Some(source) => assert_eq!(source, CRATES_IO, "{}", text(package, "name")),
            None => assert!(here(package), "{} lies outside the workspace", text(package, "name")),
        }
    }
}

/// The kind of a dependency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Normal, Self::Build, Self::Dev];

    fn of(kind: &Value) -> Self {
        match kind.as_str() {
            None => Self::Normal,
            Some("build") => Self::Build,
            Some("dev") => Self::Dev,
            Some(other) => panic!("unknown kind of dependency: {other}"),
        }
    }
}

/// The packages that `member` itself names; none if there is no such member.
fn named_by(member: &str, kinds: &[Kind]) -> impl Iterator<Item = &'static str> {
    let package = workspace().find(|package| package["name"] == member);
    let dependencies = package.into_iter().flat_map(|package| list(package, "dependencies"));
    dependencies.filter(|dependency| kinds.contains(&Kind::of(&dependency["kind"]))).map(|dep| text(dep, "name"))
}

fn members() -> impl Iterator<Item = &'static str> {
    workspace().map(|package| text(package, "name"))
}

fn workspace() -> impl Iterator<Item = &'static Value> {
    packages().filter(|package| list(metadata(), "workspace_members").any(|id| *id == package["id"]))
}

/// Every package that an application is built with: the workspace without [`DEV`], and all normal dependencies below.
fn shipped() -> Vec<&'static Value> {
    let by_id: BTreeMap<&str, &Value> = packages().map(|package| (text(package, "id"), package)).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata()["resolve"], "nodes").map(|node| (text(node, "id"), node)).collect();
    let mut seen = BTreeSet::new();
    let mut ahead: Vec<&str> = workspace()
        .filter(|package| !DEV.contains(&text(package, "name")))
        .map(|package| text(package, "id"))
        .collect();
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal = |dep: &&Value| list(dep, "dep_kinds").any(|dep_kind| Kind::of(&dep_kind["kind"]) == Kind::Normal);
        ahead.extend(list(nodes[id], "deps").filter(normal).map(|dep| text(dep, "pkg")));
    }
    assert!(seen.len() > 100, "an application is built of more than {} packages", seen.len());
    seen.into_iter().map(|id| by_id[id]).collect()
}

fn packages() -> impl Iterator<Item = &'static Value> {
    list(metadata(), "packages")
}

/// The output of `cargo metadata` for this machine's platform: packages of other platforms need not be downloaded.
fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo prints its host");
        let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
        serde_json::from_str(&cargo(&arguments)).unwrap()
    })
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn toml_of(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("cargo metadata has no text {key:?}"))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().unwrap_or_else(|| panic!("cargo metadata has no list {key:?}")).iter()
}

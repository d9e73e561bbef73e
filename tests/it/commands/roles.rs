//! `--roles`: the parts of a node that a process runs.

use std::fs;

use phalanx_testkit::{Process, Signal, command};
use serde_json::Value;

use super::{document, fail};

/// Variables that the option wins over.
const OTHERS: (&str, &str) = ("PHALANX__GENERAL__ROLES", "worker");

#[tokio::test]
async fn the_option_wins_over_variables_and_is_shown_as_the_origin() {
    let settings = document(&["config", "--origins", "--roles", "web, scheduler"], &[OTHERS], "origins").await;
    let mut all = settings["settings"].as_array().unwrap().iter();
    let roles = all.find(|setting| setting["setting"] == "general.roles").unwrap();
    assert_eq!((&roles["value"], &roles["origin"]), (&r#"["web","scheduler"]"#.into(), &"--roles".into()));
}

#[tokio::test]
async fn the_workers_of_a_parent_have_its_roles() {
    let arguments = ["start", "cluster", "--workers", "1", "--roles", "web"];
    let mut parent = Process::spawn_with("tour", &arguments, &[OTHERS]);
    parent.ready().await;
    let status = command("tour", parent.folder()).args(["cluster", "status", "--json"]).output().await.unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["workers"][0]["roles"], Value::from(vec!["web"]), "{status}");
    parent.signal(Signal::TERM);
    assert_eq!(parent.ended().await.code(), Some(0), "{}", parent.stderr());
}

#[tokio::test]
async fn roles_that_cannot_be_are_refused_with_2() {
    for start in [&["start"][..], &["start", "cluster"]] {
        let text = fail(2, &[start, &["--roles", "web,boss"]].concat(), &[]).await;
        assert!(text.contains(r#""boss" is no role: there are web, worker and scheduler"#), "{text}");
    }
    let config = tempfile::tempdir().unwrap();
    fs::write(config.path().join("local.toml"), "[[cluster.processes]]\nname = \"a\"\nroles = [\"web\"]\n").unwrap();
    let environment = [("PHALANX_CONFIG", config.path().to_str().unwrap())];
    let text = fail(2, &["start", "cluster", "--roles", "web"], &environment).await;
    assert!(text.contains("--roles and cluster.processes both name roles"), "{text}");
}

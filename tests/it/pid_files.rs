//! Pid files: one process of an id at a time, by a lock that lives as long as the process.

use std::fs;
use std::path::Path;

use phalanx_testkit::{Process, Signal, command};
use tokio::time::timeout;

use crate::panics::SOON;

/// The result of a start with this pid folder: its exit code, and what it says.
async fn start(folder: &Path, pids: &Path) -> (Option<i32>, String) {
    let mut command = command("tour", folder);
    command.env("PHALANX_TITLE", "one").env("PHALANX__PATHS__PID", pids).kill_on_drop(true);
    let ended = timeout(SOON, command.output()).await.expect("it ends").unwrap();
    assert!(ended.stdout.is_empty(), "{ended:?}");
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

fn settings(pids: &Path) -> [(&str, &str); 2] {
    [("PHALANX_TITLE", "one"), ("PHALANX__PATHS__PID", pids.to_str().unwrap())]
}

#[tokio::test]
async fn a_second_start_of_an_id_names_the_process_that_lives_and_leaves_its_file_alone() {
    let home = tempfile::tempdir().unwrap();
    let pids = home.path().join("pids");
    let mut node = Process::start("tour", &settings(&pids)).await;
    let file = pids.join("one.pid");
    let (code, text) = start(home.path(), &pids).await;
    let expected = format!("error: node one: it runs already: process {} holds {}\n", node.pid(), file.display());
    assert_eq!((code, text), (Some(1), expected));
    assert_eq!(fs::read_to_string(&file).unwrap(), node.pid().to_string());
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
    assert!(!file.exists());
}

#[tokio::test]
async fn the_file_of_a_process_that_was_killed_stops_no_start_whoever_has_its_number_now() {
    let home = tempfile::tempdir().unwrap();
    let pids = home.path().join("pids");
    let mut killed = Process::start("tour", &settings(&pids)).await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    let file = pids.join("one.pid");
    assert!(file.exists());
    // A longer number than most, and that of a process that lives.
    for left in [format!("000000{}", std::process::id()), "no number".to_owned(), String::new()] {
        fs::write(&file, left).unwrap();
        let mut node = Process::start("tour", &settings(&pids)).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), node.pid().to_string());
        node.signal(Signal::TERM);
        assert!(node.ended().await.success());
        assert!(!file.exists());
    }
}

#[tokio::test]
async fn of_starts_at_the_same_moment_exactly_one_wins() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let pids = home.path().join(round.to_string());
        let starts: Vec<_> = (0..4).map(|_| Process::spawn("tour", &settings(&pids))).collect();
        let mut running = None;
        for mut process in starts {
            if process.is_ready().await {
                assert!(running.replace(process).is_none(), "two run");
            } else {
                assert_eq!(process.ended().await.code(), Some(1));
                assert!(process.stderr().starts_with("error: node one: it runs already: "), "{}", process.stderr());
            }
        }
        let node = running.expect("one runs");
        assert_eq!(fs::read_to_string(pids.join("one.pid")).unwrap(), node.pid().to_string());
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_ends_the_start_and_no_folder_is_fine() {
    let home = tempfile::tempdir().unwrap();
    let no_folder = home.path().join("file");
    fs::write(&no_folder, "").unwrap();
    let (code, text) = start(home.path(), &no_folder).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(no_folder.join("one.pid").to_str().unwrap()), "{text}");
    assert!(text.contains("set paths.pid to a folder that can be written, or to \"\""), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(Process::start("tour", &settings(Path::new(""))).await);
    }
    assert!(nodes.iter().all(|node| !node.folder().join("pids").exists()));
}

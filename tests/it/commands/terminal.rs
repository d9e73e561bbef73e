//! Output on a terminal, into a pipe and to a full disk.

use std::fs::File;
use std::process::{Output, Stdio};
use std::time::Duration;

use phalanx_testkit::{binary, command};
use tokio::process::Command;
use tokio::time::timeout;

use super::print;

const SOON: Duration = Duration::from_secs(20);

/// Runs a command line of the shell, with `tour` as `$TOUR`, on a terminal of 40 columns; returns what it shows.
async fn on_terminal(line: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &format!("stty columns 40; {line}"), "/dev/null"]);
    script.env("TOUR", binary("tour")).env_remove("REDIS_URL").current_dir(&folder).stdin(Stdio::null());
    let output = timeout(SOON, script.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[tokio::test]
async fn a_table_is_cut_to_the_terminal_and_nowhere_else() {
    let whole = print(&["routes"], &[]).await;
    assert!(whole.lines().any(|line| line.chars().count() > 40) && !whole.contains('…'), "{whole}");
    let shown = on_terminal("$TOUR routes").await;
    assert_eq!(shown.lines().count(), whole.lines().count());
    assert!(shown.lines().all(|line| line.chars().count() <= 40) && shown.contains('…'), "{shown}");
    assert_eq!(on_terminal("$TOUR routes | cat").await, whole);
}

/// Runs a command with this stdout; it may print nothing to stderr but a reason.
async fn into(stdout: impl Into<Stdio>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut tour = command("tour", folder.path());
    tour.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
    timeout(SOON, tour.spawn().unwrap().wait_with_output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_reader_that_leaves_ends_a_command_silently_and_a_full_disk_does_not() {
    for arguments in [&["routes"][..], &["actions"], &["config"], &["routes", "--json"], &["call", "status"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = into(writer, arguments).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        let output = into(File::options().write(true).open("/dev/full").unwrap(), arguments).await;
        let reason = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {reason}");
        assert!(reason.starts_with("error: "), "{arguments:?}: {reason}");
    }
}

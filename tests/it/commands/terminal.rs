//! Output on a terminal, into a pipe and to a full disk.

use std::fs::File;
use std::process::{Output, Stdio};
use std::time::Duration;

use phalanx_testkit::{Process, Redis, binary, command};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{fail, print};

const SOON: Duration = Duration::from_secs(60);

/// Runs a command line of the shell, with `tour` as `$TOUR`, on a terminal of 40 columns, whose user types `input`.
async fn on_terminal(line: &str, environment: &[(&str, &str)], input: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &format!("stty columns 40; {line}"), "/dev/null"]);
    script.env("TOUR", binary("tour")).env_remove("REDIS_URL").envs(environment.iter().copied()).current_dir(&folder);
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    script.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    timeout(SOON, script.wait_with_output()).await.unwrap().unwrap()
}

/// The same with success; returns what the terminal shows.
async fn shown(line: &str) -> String {
    let output = on_terminal(line, &[], "").await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[tokio::test]
async fn a_table_is_cut_to_the_terminal_and_nowhere_else() {
    let whole = print(&["routes"], &[]).await;
    assert!(whole.lines().any(|line| line.chars().count() > 40) && !whole.contains('…'), "{whole}");
    let cut = shown("$TOUR routes").await;
    assert_eq!(cut.lines().count(), whole.lines().count());
    assert!(cut.lines().all(|line| line.chars().count() <= 40) && cut.contains('…'), "{cut}");
    assert_eq!(shown("$TOUR routes | cat").await, whole);
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

#[tokio::test]
async fn a_destructive_command_asks_on_a_terminal_and_needs_yes_elsewhere() {
    let redis = Redis::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX_ENV", "test")];
    let _node = Process::start("tour", &environment).await;
    let enqueue = async |id: &str| {
        print(&["tasks", "enqueue", "noop", "--delay", "1h", "--id", id], &environment).await;
    };
    enqueue("mine").await;
    for command in [&["tasks", "delete", "mine"][..], &["tasks", "cancel", "mine"], &["tasks", "retry", "--all"]] {
        let reason = fail(2, command, &environment).await;
        let expected = "error: this changes the cluster tour (test): without a terminal to ask it needs --yes\n";
        assert_eq!(reason, expected, "{command:?}");
    }
    for answer in ["n\n", "\n", "\u{4}"] {
        let output = on_terminal("$TOUR tasks delete mine", &environment, answer).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{answer:?}: {text}");
        assert!(text.contains("delete 1 job, mine, in the cluster tour (test)? [y/N] "), "{answer:?}: {text}");
        assert!(text.contains("not confirmed: nothing was changed"), "{answer:?}: {text}");
    }
    let output = on_terminal("$TOUR tasks delete mine", &environment, "y\n").await;
    assert!(output.status.success() && output.stdout.ends_with(b"deleted\r\n"), "{output:?}");
    let output = on_terminal("$TOUR tasks retry --all", &environment, "yes\n").await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("have 0 failed jobs run again in the cluster tour (test)?"), "{text}");
    enqueue("other").await;
    assert_eq!(print(&["tasks", "delete", "other", "--yes"], &environment).await, "deleted\n");
}

#[tokio::test]
async fn colours_are_for_terminals_and_no_color_turns_them_off() {
    let colour = "\u{1b}[32mok\u{1b}[0m";
    let coloured = on_terminal("$TOUR doctor", &[], "").await;
    assert!(String::from_utf8_lossy(&coloured.stdout).contains(colour), "{coloured:?}");
    for (line, environment) in [("$TOUR doctor", &[("NO_COLOR", "1")][..]), ("$TOUR doctor | cat", &[])] {
        let plain = on_terminal(line, environment, "").await;
        assert!(!plain.stdout.contains(&0x1b), "{line}: {plain:?}");
    }
}

//! The commands and the session of the README produce the output that it shows.

use phalanx_testkit::Process;
use tokio::process::Command;

use crate::client::Socket;

const README: &str = include_str!("../../README.md");

/// Connection ids are random; the README shows one.
const SHOWN_ID: &str = "7ygh4vmbza-focwxi565ituudis3vwsw2";

/// The lines of the first block in `language` after the text `after`.
fn block(after: &str, language: &str) -> impl Iterator<Item = &'static str> {
    let (_, rest) = README.split_once(after).unwrap_or_else(|| panic!("{after:?} is not in the README"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.lines()
}

#[tokio::test]
async fn the_curl_lines_of_the_readme_print_what_it_shows() {
    let node = Process::start("chat", &[]).await;
    let mut lines = block("With the chat running:", "console");
    let mut commands = 0;
    while let Some(command) = lines.next() {
        let command = command.strip_prefix("$ ").unwrap().replace("localhost:8080", &node.addr.to_string());
        let printed = Command::new("bash").args(["-c", &command]).output().await.unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let shown = lines.next().unwrap().strip_suffix(" \u{2026}").unwrap();
        assert!(printed.starts_with(shown), "{command}\nprints {printed}\nnot    {shown}");
        commands += 1;
    }
    assert_eq!(commands, 3);
}

#[tokio::test]
async fn the_session_of_the_readme_runs_as_shown() {
    let node = Process::start("chat", &[]).await;
    let mut lines = block("`>` sent, `<` received", "text");
    let mut socket = Socket::connect(node.addr).await;
    let id = socket.id();
    let welcome = lines.next().unwrap().strip_prefix("< ").unwrap().replace(SHOWN_ID, &id);
    assert_eq!(socket.welcome, serde_json::from_str::<serde_json::Value>(&welcome).unwrap());
    let mut lines = lines.peekable();
    while let Some(sent) = lines.next().map(|line| line.strip_prefix("> ").unwrap()) {
        socket.send(sent).await;
        let mut shown = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("< {")) {
            shown.push(without_time(&line[2..].replace(SHOWN_ID, &id)));
        }
        let mut received = Vec::new();
        for _ in 0..shown.len() {
            received.push(without_time(&socket.read_text().await));
        }
        // A message may overtake the `OK` of its sender.
        shown.sort_unstable();
        received.sort_unstable();
        assert_eq!(received, shown, "{sent}");
        if lines.next_if_eq(&"< close 1000").is_some() {
            assert_eq!(socket.closed().await, 1000);
        }
    }
}

/// The frame without the digits of `sentAt`, which differ in each run.
fn without_time(frame: &str) -> String {
    let Some((before, time)) = frame.split_once("\"sentAt\":") else { return frame.to_owned() };
    format!("{before}{}", time.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

//! Prints the results of commands.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use crate::app::failed;
use crate::logging;

/// The result of a command.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    /// For people.
    pub(super) text: String,
    /// For programs: one line each.
    pub(super) lines: Vec<Value>,
    /// Why the result is not whole. It is printed to stderr, and makes the exit code 1.
    pub(super) problem: Option<String>,
    /// Whether lines start with the status of a check, which a terminal shows in colour.
    pub(super) has_statuses: bool,
}

impl Printed {
    /// One result.
    pub(super) fn one(text: impl std::fmt::Display, line: Value) -> Self {
        Self { text: format!("{text}\n"), lines: vec![line], ..Self::default() }
    }

    /// Prints it in place of what was printed before, on a terminal; elsewhere after that, with an empty line between. Returns
    /// whether its reader is still there.
    ///
    /// # Errors
    ///
    /// Stdout cannot be written.
    pub(super) fn print_again(&self, as_json: bool) -> io::Result<bool> {
        let (begin, text) = match columns().filter(|_| !as_json) {
            Some(columns) => ("\u{1b}[H\u{1b}[2J", cut(&self.text, columns)),
            None if as_json => ("", self.json_lines()),
            None => ("", format!("{}\n", self.text)),
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(begin.as_bytes()).and_then(|()| out.write_all(text.as_bytes()));
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    fn json_lines(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n")
    }

    /// Prints it for programs or for people.
    pub(crate) fn print(self, as_json: bool) -> ExitCode {
        let printed = if as_json {
            print(&self.json_lines())
        } else if self.has_statuses {
            print_statuses(&self.text)
        } else {
            print_table(&self.text)
        };
        match self.problem {
            Some(problem) => failed(&problem),
            None => printed,
        }
    }
}

/// Prints text to stdout. A reader that has left, such as `head`, is no error.
pub(crate) fn print(text: &str) -> ExitCode {
    match write(&[text.as_bytes()]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("stdout: {error}")),
    }
}

/// Prints a table; on a terminal each line is cut to its width.
pub(crate) fn print_table(text: &str) -> ExitCode {
    match columns() {
        Some(columns) => print(&cut(text, columns)),
        None => print(text),
    }
}

/// The width of the terminal, if stdout is one.
fn columns() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Prints statuses with what they are about; on a terminal in colour, unless `NO_COLOR` is set and not empty.
fn print_statuses(text: &str) -> ExitCode {
    if io::stdout().is_terminal() && !logging::is_plain() { print(&coloured(text)) } else { print(text) }
}

/// Colours the status at the start of each line.
fn coloured(text: &str) -> String {
    let colour = |line: &str| {
        let status = line.split(' ').next().unwrap_or_default();
        let number = match status {
            "ok" => 32,
            "warn" => 33,
            "fail" => 31,
            _ => return format!("{line}\n"),
        };
        format!("\u{1b}[{number}m{status}\u{1b}[0m{}\n", &line[status.len()..])
    };
    text.lines().map(colour).collect()
}

/// Writes to stdout. A reader that has left, such as `head`, is no error.
///
/// # Errors
///
/// The file behind stdout cannot be written, for example because its disk is full.
pub(super) fn write(pieces: &[&[u8]]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    unless_left(pieces.iter().try_for_each(|piece| out.write_all(piece)).and_then(|()| out.flush()))
}

/// The result of a write to stdout, unless its reader has left.
pub(super) fn unless_left(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Cuts each line to so many characters, the last of which shows that it was cut.
fn cut(text: &str, columns: usize) -> String {
    let cut = |line: &str| match line.char_indices().nth(columns) {
        Some(_) => line.chars().take(columns - 1).chain(['…', '\n']).collect::<String>(),
        None => format!("{line}\n"),
    };
    text.lines().map(cut).collect()
}

/// Unix time in milliseconds as RFC 3339: `2026-11-29T21:04:05.678Z`.
pub(super) fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default()
}

/// A date as resque writes it, in the same form. Other tools write others, which stay as they are.
pub(super) fn time_of_resque(date: &str) -> String {
    let date = date.trim();
    let start = date.split(" (").next().unwrap_or(date);
    let parsed = DateTime::parse_from_str(start, "%a %b %d %Y %H:%M:%S GMT%z")
        .ok()
        .or_else(|| Some(NaiveDateTime::parse_from_str(date, "%Y/%m/%d %H:%M:%S UTC").ok()?.and_utc().fixed_offset()));
    parsed.map_or_else(|| date.to_owned(), |time| time.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_characters() {
        let text = "ID  NAME\nä   long name\n\nb   1234\n";
        assert_eq!(cut(text, 8), "ID  NAME\nä   lon…\n\nb   1234\n");
        assert_eq!(cut(text, 200), text);
        assert_eq!(cut("ab\n", 1), "…\n");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        assert_eq!(time(1_796_000_645_678), "2026-11-30T01:04:05.678Z");
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(u64::MAX), "");
    }
    #[test]
    fn dates_of_resque_are_translated_if_they_are_understood() {
        for (date, time) in [
            ("Mon Nov 30 2026 01:04:05 GMT+0000 (Coordinated Universal Time)", "2026-11-30T01:04:05Z"),
            ("Mon Nov 30 2026 02:04:05 GMT+0100 (Central European Standard Time)", "2026-11-30T01:04:05Z"),
            ("2026/11/30 01:04:05 UTC", "2026-11-30T01:04:05Z"),
            ("yesterday", "yesterday"),
            ("", ""),
        ] {
            assert_eq!(time_of_resque(date), time);
        }
    }
}

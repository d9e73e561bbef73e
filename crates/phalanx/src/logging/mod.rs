//! Logs: to stderr, as text in development and as JSON in production, and to a file unless `log.file` is off.
//!
//! Each is a [`Sink`] with a bounded queue and a thread of its own, so that neither a pipe that is not read nor a slow
//! disk delays the node. All text of the process goes through them, the reason of its end too.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use phalanx_core::config::LogFormat;
use tokio::time::Instant;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use self::line::LineFormat;
use self::output::Output;
use self::sink::Sink;
use crate::settings::Settings;

mod daily;
mod line;
mod output;
pub(crate) mod panics;
mod queue;
mod sink;

pub(crate) use panics::install_hook;

/// The time for all sinks together to be written before the process ends.
const EXIT_FLUSH: Duration = Duration::from_millis(500);

static STDERR: OnceLock<Sink> = OnceLock::new();
static STDOUT: OnceLock<Sink> = OnceLock::new();
static FILE: OnceLock<Sink> = OnceLock::new();

/// Installs the log. A second call in one process has no effect.
///
/// # Errors
///
/// The filter in `log.level` cannot be parsed, the file cannot be opened, or no thread can be started.
pub(crate) fn install(settings: &Settings) -> Result<(), String> {
    let log = &settings.config.log;
    let as_json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => settings.environment.is_production(),
    };
    let colour = io::stderr().is_terminal() && !is_plain();
    let format = if as_json { LineFormat::Json } else { LineFormat::Human { colour } };
    let console = stderr(format).map_err(|error| format!("stderr cannot be written: {error}"))?;
    let console = fmt::layer().with_writer(console.clone()).with_ansi(colour);
    let console = if as_json {
        console.json().flatten_event(true).with_filter(filter(&log.level)?).boxed()
    } else {
        console.with_filter(filter(&log.level)?).boxed()
    };
    let to_file = if log.file {
        let name = format!("{}-{}.log", settings.file_stem(), settings.environment.0);
        let file = Output::append_to(&settings.config.paths.log, &name, log.keep)
            .and_then(|output| started(&FILE, "file", output, LineFormat::Json))
            .map_err(|error| {
                let folder = settings.config.paths.log.display();
                format!("{folder}/{name}: {error}: set paths.log to a folder that can be written, or log.file = false")
            })?;
        let layer = fmt::layer().with_writer(file.clone()).with_ansi(false).json().flatten_event(true);
        Some(layer.with_filter(filter(&log.level)?))
    } else {
        None
    };
    // A test may have installed a subscriber of its own, which then wins.
    let _ = tracing_subscriber::registry().with(console).with(to_file).try_init();
    Ok(())
}

/// Checks a filter.
///
/// # Errors
///
/// It cannot be parsed.
pub(crate) fn check_filter(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// The filter, which lets every panic pass: an application that logs only its own lines wants to see them too.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log.level {level:?}: {error}"))?;
    let panics = format!("{}=error", panics::TARGET);
    Ok(filter.add_directive(panics.parse().map_err(|error| format!("{panics}: {error}"))?))
}

/// Reopens the log file under its name, after logrotate or the like has renamed the old one.
pub(crate) fn reopen() {
    if let Some(file) = FILE.get() {
        file.reopen();
    }
}

/// Prints the lines by which a supervisor recognises that the node is ready. Like all others they wait for no reader.
pub(crate) fn print_ready(text: &str) {
    match Output::stream(io::stdout()).and_then(|output| started(&STDOUT, "stdout", output, PLAIN)) {
        Ok(stdout) => stdout.push_text(text),
        Err(_) => drop(io::stdout().write_all(text.as_bytes())),
    }
}

/// Prints an error of the command line, and waits a moment until it is written.
pub(crate) fn print_error(text: &str) {
    match stderr(PLAIN) {
        Ok(stderr) => stderr.push_text(text),
        Err(_) => drop(io::stderr().write_all(text.as_bytes())), // no thread can be started
    }
    flush(EXIT_FLUSH);
}

/// Logs the reason why the process ends with an error, behind all that is queued, and waits a moment until it is written.
pub(crate) fn print_reason(reason: &dyn Display) {
    let as_json = STDERR.get().filter(|stderr| stderr.is_json());
    for sink in FILE.get().into_iter().chain(as_json) {
        sink.push_reason(&reason.to_string());
    }
    match as_json {
        Some(_) => flush(EXIT_FLUSH),
        None => print_error(&format!("error: {reason}\n")),
    }
}

/// Waits until all lines are written, at most [`EXIT_FLUSH`]: the process ends, or executes another program.
pub(crate) fn flush_at_exit() {
    flush(EXIT_FLUSH);
}

/// Whether the user wants no colours: `NO_COLOR` is set and not empty.
pub(crate) fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Waits until all lines of all sinks are written, or `limit` is over.
fn flush(limit: Duration) {
    let start = Instant::now();
    for sink in sinks() {
        sink.flush(limit.saturating_sub(start.elapsed()));
    }
}

/// The number of lines that each sink of the log has dropped.
pub(crate) fn dropped_lines() -> impl Iterator<Item = (&'static str, u64)> {
    [&FILE, &STDERR].into_iter().filter_map(OnceLock::get).map(|sink| (sink.name, sink.dropped()))
}

fn sinks() -> impl Iterator<Item = &'static Sink> {
    // The quickest one first: what one waits for, the next has no time for.
    [&STDOUT, &FILE, &STDERR].into_iter().filter_map(OnceLock::get)
}

/// The format of texts that are no log lines.
const PLAIN: LineFormat = LineFormat::Human { colour: false };

fn stderr(format: LineFormat) -> io::Result<&'static Sink> {
    Output::stream(io::stderr()).and_then(|output| started(&STDERR, "stderr", output, format))
}

fn started(
    cell: &'static OnceLock<Sink>,
    name: &'static str,
    output: Output,
    format: LineFormat,
) -> io::Result<&'static Sink> {
    if let Some(sink) = cell.get() {
        return Ok(sink);
    }
    let sink = Sink::start(name, output, format)?;
    Ok(cell.get_or_init(|| sink))
}

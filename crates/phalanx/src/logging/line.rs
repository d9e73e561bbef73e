//! Lines that the log writes about itself, in the format of the lines around them.

use std::fmt::Write;

use serde_json::Value;
use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The target of these lines.
pub(super) const TARGET: &str = "phalanx::logging";

/// The format of a sink's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    Human { colour: bool },
    Json,
}

impl LineFormat {
    /// Announces lines that are missing at this position.
    pub(super) fn gap(self, lines: u64) -> String {
        self.line(Level::WARN, "log lines were dropped here", Some(lines))
    }

    /// A line with this message, as the layers of tracing-subscriber format it. They cannot do it here: an event would
    /// reach both sinks, and at the end of their queues.
    pub(super) fn line(self, level: Level, message: &str, lines: Option<u64>) -> String {
        let mut time = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut text = String::new();
        let _ = match self {
            Self::Json => {
                let lines = lines.map(|lines| format!(r#""lines":{lines},"#)).unwrap_or_default();
                let message = Value::from(message);
                writeln!(
                    text,
                    r#"{{"timestamp":"{time}","level":"{level}","message":{message},{lines}"target":"{TARGET}"}}"#
                )
            }
            Self::Human { colour: false } => {
                let lines = lines.map(|lines| format!(" lines={lines}")).unwrap_or_default();
                writeln!(text, "{time} {level:>5} {TARGET}: {message}{lines}")
            }
            Self::Human { colour: true } => {
                let lines = lines.map(|lines| format!(" \x1b[3mlines\x1b[0m\x1b[2m=\x1b[0m{lines}"));
                let number = if level == Level::ERROR { 31 } else { 33 };
                writeln!(
                    text,
                    "\x1b[2m{time}\x1b[0m \x1b[{number}m{level:>5}\x1b[0m \x1b[2m{TARGET}\x1b[0m\x1b[2m:\x1b[0m \
                     {message}{}",
                    lines.unwrap_or_default()
                )
            }
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Layer, fmt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Replaces the time, of which only the length is the same in two lines.
    fn without_time(line: &str) -> String {
        let start = line.find("20").unwrap();
        let length = line[start..].find('Z').unwrap();
        assert_eq!(length, "2026-01-02T03:04:05.123456".len(), "{line}");
        format!("{}{}", &line[..start], &line[start + length..])
    }

    #[test]
    fn a_gap_is_announced_in_the_format_of_the_lines_around_it() {
        for format in [LineFormat::Json, LineFormat::Human { colour: false }, LineFormat::Human { colour: true }] {
            let written = Written::default();
            let layer = fmt::layer().with_writer(written.clone());
            let layer = match format {
                LineFormat::Json => layer.with_ansi(false).json().flatten_event(true).boxed(),
                LineFormat::Human { colour } => layer.with_ansi(colour).boxed(),
            };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::warn!(target: TARGET, lines = 5, "log lines were dropped here");
            });
            let expected = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert_eq!(without_time(&format.gap(5)), without_time(&expected));
        }
    }
}

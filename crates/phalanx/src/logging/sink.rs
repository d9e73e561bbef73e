//! A sink: a bounded queue of lines, and the thread that writes them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::line::LineFormat;
use super::output::Output;
use super::queue::{LineQueue, QueuedLine, Work};

/// Most bytes of a write of several lines. A pipe takes so many at once or not at all, so that lines of several processes
/// on one pipe are not torn.
const WRITE_BYTES: usize = 4096;

/// The handle of a sink. Cheap to clone; its thread runs until the process ends.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    pub(super) name: &'static str,
    queue: Arc<LineQueue>,
    format: LineFormat,
}

impl Sink {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system starts no more threads.
    pub(super) fn start(name: &'static str, output: Output, format: LineFormat) -> io::Result<Self> {
        let queue = Arc::new(LineQueue::default());
        let mut writer =
            SinkThread { name, queue: queue.clone(), output, format, missing: 0, is_torn: false, is_failing: false };
        thread::Builder::new().name(format!("log-{name}")).spawn(move || writer.run())?;
        Ok(Self { name, queue, format })
    }

    /// Queues the last words of the process in the sink's format, also beyond the bounds.
    pub(super) fn push_reason(&self, reason: &str) {
        self.queue.push_last(self.format.line(Level::ERROR, reason, None).as_bytes());
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == LineFormat::Json
    }

    /// Queues a text as it is, also beyond the bounds.
    pub(super) fn push_text(&self, text: &str) {
        self.queue.push_last(text.as_bytes());
    }

    /// Lets the thread reopen the file.
    pub(super) fn reopen(&self) {
        self.queue.request_reopen();
    }

    /// Waits until all is written, or `limit` is over.
    pub(super) fn flush(&self, limit: Duration) {
        self.queue.flush(limit);
    }

    /// The number of lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// Takes the lines of the layers of tracing-subscriber, which write each in one call.
impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl io::Write for &Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's side.
struct SinkThread {
    name: &'static str,
    queue: Arc<LineQueue>,
    output: Output,
    format: LineFormat,
    /// The number of lost lines that are not announced yet.
    missing: u64,
    /// Whether the last line was written only in part.
    is_torn: bool,
    /// Whether the last write failed.
    is_failing: bool,
}

impl SinkThread {
    fn run(&mut self) {
        // Signals are for the other threads. Some are even caused by writes: with SIGXFSZ or SIGTTOU blocked, these fail
        // or succeed, but neither end nor stop the process.
        let _ = SigSet::all().thread_block();
        loop {
            match self.queue.next() {
                Work::Write(batch, dropped_after) => {
                    if let Err(error) = self.output.rotate_if_due() {
                        tracing::error!(%error, "the log file is not rotated today");
                    }
                    let failed = self.write_all(&batch, dropped_after);
                    self.queue.done(&batch);
                    let was_failing = std::mem::replace(&mut self.is_failing, failed.is_some());
                    if let Some(error) = failed.filter(|_| !was_failing) {
                        tracing::error!(sink = self.name, %error, "log lines cannot be written");
                    }
                }
                Work::Reopen => {
                    if let Err(error) = self.output.reopen() {
                        tracing::error!(%error, "the log file could not be reopened; lines still go to the old one");
                    }
                }
            }
        }
    }

    /// Writes a batch, and returns the last error.
    fn write_all(&mut self, mut batch: &[QueuedLine], dropped_after: u64) -> Option<io::Error> {
        let mut failed = None;
        loop {
            let mut bytes = 0;
            let fits = |line: &&QueuedLine| {
                bytes += line.text.len();
                bytes <= WRITE_BYTES
            };
            let count = batch.iter().take_while(fits).count().max(1).min(batch.len());
            let (lines, rest) = batch.split_at(count);
            batch = rest;
            let error = self.write(lines, if rest.is_empty() { dropped_after } else { 0 });
            failed = error.or(failed);
            if rest.is_empty() {
                return failed;
            }
        }
    }

    /// Writes lines at once, with a notice in each gap. Counts the lines that could not be written.
    fn write(&mut self, batch: &[QueuedLine], dropped_after: u64) -> Option<io::Error> {
        let mut text = Vec::new();
        if self.is_torn {
            text.push(b'\n');
        }
        // The end of each line in the text, and the lost lines that are announced up to there.
        let mut lines = Vec::with_capacity(batch.len());
        let mut announced = 0;
        for line in batch {
            self.missing += line.dropped_before;
            announced = self.announce(announced, &mut text);
            text.extend_from_slice(&line.text);
            lines.push((text.len(), announced));
        }
        self.missing += dropped_after;
        if dropped_after > 0 {
            announced = self.announce(announced, &mut text);
        }
        let (written, result) = self.output.write(&text);
        let Err(error) = result else {
            self.missing -= announced;
            self.is_torn = false;
            return None;
        };
        let complete = lines.iter().take_while(|(end, _)| *end <= written).count();
        let failed = (lines.len() - complete) as u64;
        self.queue.count_dropped(failed);
        self.missing += failed;
        self.missing -= complete.checked_sub(1).map_or(0, |last| lines[last].1);
        if written > 0 {
            self.is_torn = text[written - 1] != b'\n';
        }
        Some(error)
    }

    /// Announces the missing lines that are not announced yet. Returns the number of all that are.
    fn announce(&self, announced: u64, text: &mut Vec<u8>) -> u64 {
        if self.missing > announced {
            text.extend_from_slice(self.format.gap(self.missing - announced).as_bytes());
        }
        self.missing
    }
}

#[cfg(test)]
mod tests;

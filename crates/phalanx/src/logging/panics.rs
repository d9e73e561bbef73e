//! Logs panics. The default hook writes to stderr itself: if that is a pipe that is not read, the thread that panics
//! waits in it for ever, and the runtime has one worker less.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;
use std::time::Duration;

use tracing::error;

/// The target of these lines; the filter of the log always lets it pass.
pub(super) const TARGET: &str = "phalanx::panic";

/// The time for the log to be written before a panic ends the process.
const FLUSH: Duration = Duration::from_millis(200);

/// The panics by which the standard library aborts: one left a destructor that ran because of another, or a function
/// that must not unwind.
const ABORTS: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// Replaces the hook of the process.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(hook));
}

fn hook(panic: &PanicHookInfo<'_>) {
    let message = message(panic.payload());
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if tracing::dispatcher::has_been_set() {
        // Without the span: the panic may have happened while the fields of the span were locked.
        error!(target: TARGET, parent: None, backtrace, "thread '{name}' panicked at {location}: {message}");
    } else {
        super::print_error(&format!("thread '{name}' panicked at {location}: {message}\n"));
    }
    let aborts = ABORTS.contains(&message) || cfg!(panic = "abort");
    if aborts || name == "main" {
        super::flush(FLUSH);
    }
    if aborts {
        // The standard library would write one more line to stderr first.
        process::abort();
    }
}

pub(crate) fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a value without a text")
}

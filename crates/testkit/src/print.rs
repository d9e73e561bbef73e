use std::fmt::Display;
use std::io::Write;

/// Prints a measurement of a test on a line of its own. Bypasses the capture of output, which hides what passing tests
/// print.
pub fn print(measurement: impl Display) {
    // A closed stdout must not fail the test.
    let _ = writeln!(std::io::stdout(), "    {measurement}");
}

use std::time::Duration;

use crate::print;

/// How much longer than documented something may take in a test: the machine runs other tests, too.
const WIDTH: u32 = 3;

/// The longest time for which a test waits for something that is documented to take that long.
pub const fn at_most(figure: Duration) -> Duration {
    figure.saturating_mul(WIDTH)
}

/// Prints a measured time, and checks that it is at most three times the documented one.
///
/// # Panics
///
/// If it is more.
pub fn check_time(of: &str, took: Duration, figure: Duration) {
    print(format_args!("{of}: {took:.1?}; the documented figure is {figure:?}"));
    assert!(took <= at_most(figure), "{of}: {took:?} is more than {WIDTH} times {figure:?}");
}

//! Counts the tokens of attempts.

use std::ops::Range;

/// Counts the tokens that calls offer: from the clock, in µs, so that a token also says when its attempt was fetched. None
/// is offered twice, whatever the clock does.
#[derive(Debug, Default)]
pub(crate) struct TokenCounter {
    last: u64,
}

impl TokenCounter {
    /// Takes `count` tokens in a row. The first one is used up in any case: it names the call.
    ///
    /// The last one before and the first one differ by an odd number: a store lets retried and fresh jobs take turns by the
    /// parity of their tokens.
    pub(crate) fn take(&mut self, count: usize, now_us: u64) -> Range<u64> {
        let next = self.next();
        let first = next + now_us.saturating_sub(next) / 2 * 2;
        let offered = first..first + count as u64;
        self.last = offered.end.max(first + 1) - 1;
        offered
    }

    /// A token below which all were offered, or never will be.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_follow_the_clock_rise_and_alternate() {
        let (mut tokens, mut last) = (TokenCounter::default(), 0);
        for (count, now_us, first) in [
            (1, 1_000_000, 999_999),
            (3, 1_000_000, 1_000_000), // no time has passed
            (0, 2_000_000, 1_999_999),
            (2, 2_000_000, 2_000_000), // the first token of a call that wants nothing is used up
            (5, 500_000, 2_000_002),   // the clock was set back
            (1, 3_000_000, 2_999_999),
        ] {
            let offered = tokens.take(count, now_us);
            assert_eq!(offered, first..first + count as u64);
            assert_eq!((offered.start - last) % 2, 1, "{offered:?} after {last}");
            last = offered.end.max(offered.start + 1) - 1;
            assert_eq!(tokens.next(), last + 1);
        }
    }
}

//! Counts the tokens of attempts.

use std::ops::Range;

/// Counts the tokens that calls offer: from the clock, in µs, so that a token also says when its attempt was fetched. None
/// is offered twice, whatever the clock does.
#[derive(Debug, Default)]
pub(crate) struct TokenCounter {
    /// The first and the last one of the last call.
    first: u64,
    last: u64,
}

impl TokenCounter {
    /// Takes `count` tokens in a row. The first one is used up in any case: it names the call.
    ///
    /// The first ones of two calls in a row differ by an odd number: by their parity a store lets retried and fresh jobs take
    /// turns, where a call may take one of them.
    pub(crate) fn take(&mut self, count: usize, now_us: u64) -> Range<u64> {
        let next = self.next();
        let mut first = next.max(now_us);
        first += u64::from((first - self.first).is_multiple_of(2));
        let offered = first..first + count as u64;
        (self.first, self.last) = (first, offered.end.max(first + 1) - 1);
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
    fn tokens_follow_the_clock_and_rise() {
        let mut tokens = TokenCounter::default();
        for (count, now_us, first) in [
            (1, 1_000_001, 1_000_001),
            (3, 1_000_001, 1_000_002), // no time has passed
            (0, 2_000_000, 2_000_001),
            (2, 2_000_000, 2_000_002), // the first token of a call that wants nothing is used up
            (5, 500_000, 2_000_005),   // the clock was set back
            (1, 3_000_000, 3_000_000),
        ] {
            assert_eq!(tokens.take(count, now_us), first..first + count as u64);
            assert_eq!(tokens.next(), (first + count as u64).max(first + 1));
        }
    }

    #[test]
    fn calls_alternate_however_many_tokens_they_take() {
        for count in [0, 1, 2, 31, 32] {
            for step_us in [0, 1, 2, 999, 1000] {
                let (mut tokens, mut now_us) = (TokenCounter::default(), 1_000_000);
                let mut before = tokens.take(count, now_us).start;
                for _ in 0..10 {
                    now_us += step_us;
                    let first = tokens.take(count, now_us).start;
                    assert_eq!((first - before) % 2, 1, "{count} tokens each {step_us} µs");
                    before = first;
                }
            }
        }
    }
}

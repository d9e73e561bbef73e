//! When a node fetches jobs, and how many: at once while there is work, seldom while there is none, and so that a burst
//! spreads over the nodes.

use std::time::Duration;

use phalanx_core::backend::EXCHANGE_BATCH;
use tokio::time::Instant;

/// A node that got fewer jobs than it wanted, although more wait, has its share: for so long it fetches only as many as it
/// settles.
const SHARE_PAUSE: Duration = Duration::from_millis(3);

/// The shortest time between two looks at queues that had nothing.
const EMPTY_PAUSE: Duration = Duration::from_millis(10);

/// How often a node looks without a wake-up: one may be lost.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// The pauses after a failure: the first, and the longest.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Decides when to fetch.
#[derive(Debug)]
pub(crate) struct FetchGate {
    /// When to look for jobs without any to settle.
    next_look: Instant,
    /// Until when only as many are fetched as are settled.
    share_until: Option<Instant>,
    /// When the last look began that found nothing.
    last_empty: Option<Instant>,
    /// Whether jobs may have been added since the last look was sent: its answer does not show them.
    is_woken: bool,
    failures: u32,
    /// Until when nothing at all is sent.
    closed_until: Option<Instant>,
}

impl FetchGate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next_look: now, share_until: None, last_empty: None, is_woken: false, failures: 0, closed_until: None }
    }

    /// Whether calls may be sent.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.closed_until.is_none_or(|until| now >= until)
    }

    /// How many jobs a call asks for that settles so many, where so many slots are free.
    pub(crate) fn wanted(&self, now: Instant, free: usize, settling: usize) -> usize {
        let has_share = self.share_until.is_some_and(|until| now < until);
        let wanted = if has_share { settling } else { free + settling };
        wanted.min(EXCHANGE_BATCH)
    }

    /// Whether to look for jobs without any to settle.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.next_look
    }

    /// When something may be sent again.
    pub(crate) fn next(&self) -> Instant {
        self.closed_until.map_or(self.next_look, |until| until.max(self.next_look))
    }

    /// When calls may be sent again, after a failure.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        self.closed_until
    }

    /// A call is sent that fetches.
    pub(crate) fn on_look(&mut self) {
        self.is_woken = false;
    }

    /// Jobs may have been added.
    pub(crate) fn on_woken(&mut self, now: Instant) {
        self.is_woken = true;
        let soonest = self.last_empty.map_or(now, |last| now.max(last + EMPTY_PAUSE));
        self.next_look = self.next_look.min(soonest);
    }

    /// A call was answered.
    pub(crate) fn on_reply(&mut self, now: Instant, wanted: usize, fetched: usize, has_more: bool) {
        self.failures = 0;
        self.closed_until = None;
        if wanted == 0 {
            return;
        }
        self.last_empty = (fetched == 0).then_some(now);
        self.share_until = (has_more && fetched < wanted).then(|| now + SHARE_PAUSE);
        self.next_look = now
            + match (has_more, fetched) {
                (true, 0) => EMPTY_PAUSE,
                (true, fetched) if fetched < wanted => SHARE_PAUSE,
                (true, _) => Duration::ZERO,
                (false, _) => IDLE_PAUSE,
            };
        if self.is_woken {
            self.on_woken(now);
        }
    }

    /// A queue is held up by its rate, for so long.
    pub(crate) fn on_rate(&mut self, now: Instant, opens_in: Duration) {
        self.next_look = self.next_look.min(now + opens_in.max(EMPTY_PAUSE));
    }

    /// A call failed, or was answered by a store in which the node has no lease.
    pub(crate) fn on_failure(&mut self, now: Instant) {
        let (first, longest) = FAILURE_PAUSES;
        let pause = (first * 2_u32.pow(self.failures.min(10))).min(longest);
        self.failures += 1;
        self.closed_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_next_look_follows_from_what_the_last_one_found() {
        let start = Instant::now();
        for (wanted, fetched, has_more, next, share) in [
            (32, 32, true, 0, false),     // under load: at once
            (32, 10, true, 3, true),      // has its share
            (32, 0, true, 10, true),      // others have theirs, or a limit is reached
            (32, 10, false, 1000, false), // the queues are empty
            (32, 0, false, 1000, false),
        ] {
            let mut gate = FetchGate::new(start);
            gate.on_reply(start, wanted, fetched, has_more);
            assert_eq!(gate.next() - start, ms(next), "{wanted} {fetched} {has_more}");
            assert_eq!(gate.wanted(start, 20, 5), if share { 5 } else { 25 }, "{wanted} {fetched} {has_more}");
            assert_eq!(gate.wanted(start + ms(3), 20, 5), 25);
        }
    }

    #[test]
    fn a_call_never_asks_for_more_than_a_batch_or_than_the_slots() {
        let start = Instant::now();
        let gate = FetchGate::new(start);
        for (free, settling, wanted) in [(0, 0, 0), (0, 3, 3), (7, 0, 7), (100, 32, EXCHANGE_BATCH)] {
            assert_eq!(gate.wanted(start, free, settling), wanted);
        }
    }

    #[test]
    fn a_wake_up_is_followed_at_once_but_empty_queues_at_most_every_ten_milliseconds() {
        let start = Instant::now();
        let mut gate = FetchGate::new(start);
        gate.on_reply(start, 5, 1, false);
        gate.on_woken(start + ms(1));
        assert_eq!(gate.next() - start, ms(1), "the last look found a job");
        gate.on_reply(start + ms(1), 5, 0, false);
        gate.on_woken(start + ms(2));
        assert_eq!(gate.next() - start, ms(11), "the last look found none");
        assert!(!gate.is_due(start + ms(10)) && gate.is_due(start + ms(11)));
    }

    #[test]
    fn a_wake_up_during_a_look_is_followed_by_another_one() {
        let start = Instant::now();
        let mut gate = FetchGate::new(start);
        gate.on_look();
        gate.on_woken(start + ms(1));
        gate.on_reply(start + ms(2), 5, 0, false);
        assert_eq!(gate.next() - start, ms(12));
        gate.on_look();
        gate.on_reply(start + ms(13), 5, 0, false);
        assert_eq!(gate.next() - start, ms(1013), "nothing was added since then");
    }

    #[test]
    fn a_call_that_only_settles_says_nothing_about_the_queues() {
        let start = Instant::now();
        let mut gate = FetchGate::new(start);
        gate.on_reply(start, 5, 5, true);
        gate.on_reply(start, 0, 0, false);
        assert_eq!(gate.next(), start);
    }

    #[test]
    fn a_queue_that_its_rate_holds_up_is_looked_at_when_it_opens_but_at_most_every_ten_milliseconds() {
        let start = Instant::now();
        let mut gate = FetchGate::new(start);
        gate.on_reply(start, 5, 1, false);
        gate.on_rate(start, ms(300));
        gate.on_rate(start, ms(40));
        gate.on_rate(start, ms(200));
        assert_eq!(gate.next() - start, ms(40));
        gate.on_rate(start, Duration::from_micros(10));
        assert_eq!(gate.next() - start, ms(10));
    }

    #[test]
    fn failures_pause_everything_for_longer_and_longer_until_one_reply() {
        let start = Instant::now();
        let mut gate = FetchGate::new(start);
        for pause in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            gate.on_failure(start);
            assert!(!gate.is_open(start + ms(pause - 1)) && gate.is_open(start + ms(pause)), "{pause}");
        }
        gate.on_reply(start, 0, 0, false);
        assert!(gate.is_open(start));
    }
}

//! Which ticks of a periodic task are due, and which of them are enqueued. Pure.

use std::time::Duration;

use phalanx_core::task::CatchUp;

use crate::calendar::Calendar;

/// Most ticks that are caught up with, and counted as missed, at once.
pub(crate) const MAX_CATCH_UP: usize = 100;

/// A tick that comes within this time after its instant was not missed: the store was away, or no node ran for a moment.
const PUNCTUAL: Duration = Duration::from_secs(60);

/// The ticks after the last one, up to now, the oldest first, and whether each is enqueued; the newest
/// [`MAX_CATCH_UP`] of them.
pub(crate) fn due_ticks(calendar: &Calendar, catch_up: CatchUp, last_ms: u64, now_ms: u64) -> Vec<(u64, bool)> {
    let before = |tick: &u64| calendar.last(tick.checked_sub(1)?);
    let newest_first = std::iter::successors(calendar.last(now_ms), before);
    let due: Vec<u64> = newest_first.take_while(|tick| *tick > last_ms).take(MAX_CATCH_UP).collect();
    let is_enqueued = |(age, tick): (usize, &u64)| match catch_up {
        CatchUp::All => true,
        CatchUp::Last => age == 0,
        CatchUp::None => age == 0 && now_ms - tick <= PUNCTUAL.as_millis() as u64,
    };
    let mut ticks: Vec<_> = due.iter().enumerate().map(|(age, tick)| (*tick, is_enqueued((age, tick)))).collect();
    ticks.reverse();
    ticks
}

#[cfg(test)]
mod tests {
    use phalanx_core::task::TickRule;

    use super::*;

    #[test]
    fn ticks_that_were_missed_are_caught_up_with_as_the_task_says() {
        let calendar = Calendar::new(&TickRule::Every(Duration::from_secs(10))).unwrap();
        let seconds = |ticks: Vec<(u64, bool)>| -> Vec<(u64, bool)> {
            ticks.into_iter().map(|(tick, is_enqueued)| (tick / 1000, is_enqueued)).collect()
        };
        use CatchUp::{All, Last, None};
        for (catch_up, last, now, expected) in [
            (Last, 100, 109, vec![]),
            (Last, 100, 110, vec![(110, true)]),
            (None, 100, 119, vec![(110, true)]),
            (Last, 100, 135, vec![(110, false), (120, false), (130, true)]),
            (None, 100, 135, vec![(110, false), (120, false), (130, true)]),
            (All, 100, 135, vec![(110, true), (120, true), (130, true)]),
            (Last, 103, 109, vec![]),
            (Last, 200, 135, vec![]),
            (All, 0, 0, vec![]),
        ] {
            let due = due_ticks(&calendar, catch_up, last * 1000, now * 1000);
            assert_eq!(seconds(due), expected, "{catch_up:?} {last} {now}");
        }
    }

    #[test]
    fn a_tick_counts_as_missed_after_a_minute() {
        let calendar = Calendar::new(&TickRule::Every(Duration::from_secs(3600))).unwrap();
        for (late_ms, is_enqueued) in [(0, true), (60_000, true), (60_001, false), (3_599_999, false)] {
            for (catch_up, expected) in [(CatchUp::None, is_enqueued), (CatchUp::Last, true), (CatchUp::All, true)] {
                let due = due_ticks(&calendar, catch_up, 3_600_000, 7_200_000 + late_ms);
                assert_eq!(due, [(7_200_000, expected)], "{catch_up:?} {late_ms}");
            }
        }
    }

    #[test]
    fn a_weekend_of_ticks_is_one_job_and_a_hundred_at_most() {
        let calendar = Calendar::new(&TickRule::Every(Duration::from_secs(1))).unwrap();
        for (catch_up, jobs) in [(CatchUp::Last, 1), (CatchUp::None, 1), (CatchUp::All, MAX_CATCH_UP)] {
            let due = due_ticks(&calendar, catch_up, 0, 172_800_000);
            assert_eq!(due.iter().filter(|(_, is_enqueued)| *is_enqueued).count(), jobs, "{catch_up:?}");
            assert_eq!(due.last(), Some(&(172_800_000, true)));
        }
    }
}

//! Laws of rate limits.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{LimitDecision, LimitStore, LimitedCall};
use phalanx_core::config::LimitRate;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Turns each law of rate limits into a test: `limit_laws!(memory: make())`.
#[macro_export]
macro_rules! limit_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            limits,
            $backend,
            $make,
            [
                a_limit_has_room_for_so_many_calls_of_a_subject,
                subjects_limits_and_windows_have_counts_of_their_own,
                all_limits_count_a_call_or_none,
                the_state_says_what_is_left_and_when_there_is_room,
                a_refused_call_is_not_remembered,
                another_rate_for_the_same_window_counts_on,
                of_many_concurrent_calls_no_more_are_counted_than_fit,
                no_window_sees_more_calls_than_the_limit,
            ]
        );
    };
}

type SharedLimits = Arc<dyn LimitStore>;

const LONG: Duration = Duration::from_secs(600);

fn call(limit: &str, subject: &str, calls: u32, window: Duration) -> LimitedCall {
    LimitedCall { limit: limit.into(), subject: subject.into(), rate: LimitRate { calls, window } }
}

async fn count(store: &SharedLimits, calls: &[LimitedCall]) -> LimitDecision {
    store.count(calls).await.expect("the backend answers")
}

/// And for none beyond.
pub async fn a_limit_has_room_for_so_many_calls_of_a_subject(store: SharedLimits) {
    let call = [call("l", "a", 3, LONG)];
    for left in [2, 1, 0] {
        let decision = count(&store, &call).await;
        assert_eq!((decision.is_counted, decision.states[0].left), (true, left));
    }
    for _ in 0..3 {
        let decision = count(&store, &call).await;
        assert_eq!((decision.is_counted, decision.states[0].left), (false, 0));
    }
}

/// A limit that gets another window counts anew: slices of two lengths cannot be added.
pub async fn subjects_limits_and_windows_have_counts_of_their_own(store: SharedLimits) {
    for (limit, subject, window) in [("l", "a", LONG), ("l", "b", LONG), ("m", "a", LONG), ("l", "a", 2 * LONG)] {
        let call = [call(limit, subject, 1, window)];
        assert!(count(&store, &call).await.is_counted, "{limit} {subject} {window:?}");
        assert!(!count(&store, &call).await.is_counted, "{limit} {subject} {window:?}");
    }
}

/// In the order in which they are given.
pub async fn all_limits_count_a_call_or_none(store: SharedLimits) {
    let both = [call("wide", "a", 5, LONG), call("narrow", "b", 2, LONG)];
    for _ in 0..2 {
        assert!(count(&store, &both).await.is_counted);
    }
    for _ in 0..4 {
        let decision = count(&store, &both).await;
        assert!(!decision.is_counted);
        let [wide, narrow] = decision.states[..] else { panic!("{decision:?}") };
        assert_eq!((wide.left, narrow.left), (3, 0));
        assert!(wide.retry_after.is_zero() && !narrow.retry_after.is_zero(), "{decision:?}");
    }
    assert_eq!(count(&store, &both[..1]).await.states[0].left, 2, "the refused calls were not counted");
}

/// To the length of a slice.
pub async fn the_state_says_what_is_left_and_when_there_is_room(store: SharedLimits) {
    let call = [call("l", "a", 2, LONG)];
    let first = count(&store, &call).await.states[0];
    assert!(first.retry_after.is_zero());
    assert!(first.whole_in >= LONG && first.whole_in <= LONG + LONG / 10, "{first:?}");
    for _ in 0..2 {
        let last = count(&store, &call).await.states[0];
        assert!(last.retry_after >= LONG - LONG / 10 && last.retry_after <= LONG + LONG / 10, "{last:?}");
        assert!(last.whole_in >= last.retry_after, "{last:?}");
    }
}

/// However many there are: they do not make the wait longer.
pub async fn a_refused_call_is_not_remembered(store: SharedLimits) {
    let call = [call("l", "a", 1, Duration::from_millis(400))];
    assert!(count(&store, &call).await.is_counted);
    let deadline = Instant::now() + super::SOON;
    let mut refused = 0;
    while !count(&store, &call).await.is_counted {
        refused += 1;
        assert!(Instant::now() < deadline, "not counted again after {refused} refused calls");
        sleep(Duration::from_millis(2)).await;
    }
    assert!(refused > 0);
}

/// So a setting can be changed while the limit holds.
pub async fn another_rate_for_the_same_window_counts_on(store: SharedLimits) {
    for _ in 0..3 {
        assert!(count(&store, &[call("l", "a", 3, LONG)]).await.is_counted);
    }
    assert_eq!(count(&store, &[call("l", "a", 5, LONG)]).await.states[0].left, 1);
    let narrow = count(&store, &[call("l", "a", 2, LONG)]).await;
    assert_eq!((narrow.is_counted, narrow.states[0].left), (false, 0));
}

/// Exactly as many.
pub async fn of_many_concurrent_calls_no_more_are_counted_than_fit(store: SharedLimits) {
    let mut counting = JoinSet::new();
    for _ in 0..64 {
        let store = store.clone();
        counting.spawn(async move { count(&store, &[call("l", "a", 20, LONG)]).await.is_counted });
    }
    assert_eq!(counting.join_all().await.into_iter().filter(|counted| *counted).count(), 20);
}

/// Wherever it begins, whatever the times of the calls: here, as many at once as are counted, whenever there is room.
pub async fn no_window_sees_more_calls_than_the_limit(store: SharedLimits) {
    const CALLS: usize = 5;
    const WINDOW: Duration = Duration::from_millis(300);
    let (mut counted, end) = (Vec::new(), Instant::now() + 6 * WINDOW);
    while Instant::now() < end {
        let sent = Instant::now();
        let decision = count(&store, &[call("l", "a", CALLS as u32, WINDOW)]).await;
        if decision.is_counted {
            counted.push((sent, Instant::now()));
        } else {
            sleep(decision.states[0].retry_after.min(Duration::from_millis(5))).await;
        }
    }
    assert!(counted.len() > 3 * CALLS, "{}", counted.len());
    for (first, last) in counted.iter().zip(&counted[CALLS..]) {
        // The first was counted after it was sent, the last one before its answer.
        let took = last.1.duration_since(first.0);
        assert!(took >= WINDOW, "{} calls within {took:?}", CALLS + 1);
    }
}

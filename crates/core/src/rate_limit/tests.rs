use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;

use super::*;
use crate::backend::{LimitState, SystemClock};

const RATE: LimitRate = LimitRate { calls: 2, window: Duration::from_secs(10) };

/// A backend that answers, refuses, or is away.
#[derive(Default)]
struct Store {
    calls: AtomicU32,
    answer: Mutex<Option<LimitDecision>>,
}

#[async_trait]
impl LimitStore for Store {
    async fn count(&self, _: &[LimitedCall]) -> Result<LimitDecision, BackendError> {
        self.calls.fetch_add(1, Relaxed);
        self.answer.lock().unwrap().clone().ok_or_else(|| BackendError::unavailable("away"))
    }
}

impl Store {
    fn answer(&self, is_counted: bool, retry_after: Duration) {
        let state = LimitState { left: 0, retry_after, whole_in: retry_after };
        *self.answer.lock().unwrap() = Some(LimitDecision { is_counted, states: vec![state] });
    }
}

fn limits(store: &Arc<Store>) -> RateLimits {
    let clock = Arc::new(SystemClock::new());
    RateLimits::new([("test", RATE), ("off", RATE)], store.clone(), clock, &settings())
}

fn settings() -> LimitSettings {
    let mut settings = LimitSettings::default();
    settings.named.insert("off".to_owned(), "0".parse().unwrap());
    settings
}

async fn is_counted(limits: &RateLimits, subject: &str) -> bool {
    let call = limits.call_of(0, || subject.into()).unwrap();
    limits.count(&[call], None).await.is_counted
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_is_over_costs_its_backend_nothing_until_it_has_room() {
    let store = Arc::new(Store::default());
    let limits = limits(&store);
    assert!(limits.call_of(1, || unreachable!("a limit that is off has no subjects")).is_none());
    store.answer(false, Duration::from_secs(3));
    for _ in 0..100 {
        assert!(!is_counted(&limits, "a").await);
    }
    assert_eq!(store.calls.load(Relaxed), 1);
    assert!(!is_counted(&limits, "b").await);
    assert_eq!(store.calls.load(Relaxed), 2);
    tokio::time::advance(Duration::from_secs(3)).await;
    store.answer(true, Duration::ZERO);
    assert!(is_counted(&limits, "a").await);
}

#[tokio::test(start_paused = true)]
async fn a_node_counts_alone_while_its_backend_is_away_and_asks_it_once_a_second() {
    let store = Arc::new(Store::default());
    let limits = limits(&store);
    let mut counted = Vec::new();
    for _ in 0..50 {
        counted.push(is_counted(&limits, "a").await);
    }
    assert_eq!(counted.iter().filter(|counted| **counted).count(), 2, "the same limit for this node");
    assert_eq!(store.calls.load(Relaxed), 1);
    tokio::time::advance(ALONE).await;
    for _ in 0..50 {
        assert!(!is_counted(&limits, "a").await);
    }
    assert_eq!(store.calls.load(Relaxed), 2);
    store.answer(true, Duration::ZERO);
    tokio::time::advance(ALONE).await;
    for _ in 0..50 {
        assert!(is_counted(&limits, "a").await, "it counts again");
    }
    assert_eq!(store.calls.load(Relaxed), 52);
}

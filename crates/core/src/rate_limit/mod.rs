//! Rate limits of a node: the store that nodes share, and what the node decides without it.

mod over;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::backend::{BackendError, Clock, LimitDecision, LimitState, LimitStore, LimitedCall};
use crate::config::{LimitRate, LimitSettings};
use crate::error::Chain;
use crate::memory::MemoryLimits;
use crate::units::whole_seconds;
use over::SubjectsOver;

/// How long a node counts alone after its backend did not answer, before one call asks the backend again.
const ALONE: Duration = Duration::from_secs(1);

/// The longest wait for the backend. A call waits for its limits before all else, and a node that counts alone is better than
/// one that answers late.
const PATIENCE: Duration = Duration::from_millis(500);

/// The time between two lines about spoilt keys.
const SPOILT_PAUSE: Duration = Duration::from_secs(60);

/// The limits of a node.
pub(crate) struct RateLimits {
    limits: Box<[ActiveLimit]>,
    store: Arc<dyn LimitStore>,
    clock: Arc<dyn Clock>,
    /// Those that the node refuses without its backend.
    over: SubjectsOver,
    /// The counts of this node alone, for as long as the backend is away.
    alone: MemoryLimits,
    /// When a call may ask the backend again, in milliseconds since `started`; zero while it answers.
    ask_again: AtomicU64,
    /// When a spoilt key was logged last, likewise; zero if none was.
    spoilt_logged_at: AtomicU64,
    started: Instant,
}

/// A limit of the application.
struct ActiveLimit {
    name: Arc<str>,
    /// `None` if a setting turns it off.
    rate: Option<LimitRate>,
    /// Its element in the list of limits that applied to an answer.
    policy: Box<str>,
    counted: Counter,
    refused: Counter,
    refused_at_once: Counter,
    alone: Counter,
}

/// The decision about a call, as far as this node knows it.
#[derive(Debug)]
pub(crate) struct LimitVerdict {
    /// Whether it was counted, by all of its limits.
    pub(crate) is_counted: bool,
    states: KnownStates,
}

#[derive(Debug)]
enum KnownStates {
    All(Vec<LimitState>),
    /// Some were not looked at.
    Some(Vec<Option<LimitState>>),
}

impl From<LimitDecision> for LimitVerdict {
    fn from(decision: LimitDecision) -> Self {
        Self { is_counted: decision.is_counted, states: KnownStates::All(decision.states) }
    }
}

impl LimitVerdict {
    /// The state of a limit of the call; `None` if it was not looked at.
    pub(crate) fn state(&self, index: usize) -> Option<LimitState> {
        match &self.states {
            KnownStates::All(states) => states.get(index).copied(),
            KnownStates::Some(states) => states.get(index).copied().flatten(),
        }
    }
}

impl RateLimits {
    /// Makes the limits of an application, by name, with the rates of its code.
    pub(crate) fn new<'a>(
        limits: impl IntoIterator<Item = (&'a str, LimitRate)>,
        store: Arc<dyn LimitStore>,
        clock: Arc<dyn Clock>,
        settings: &LimitSettings,
    ) -> Self {
        let active = |(name, rate)| ActiveLimit::new(name, settings.rate_of(name, rate));
        Self {
            limits: limits.into_iter().map(active).collect(),
            store,
            over: SubjectsOver::new(settings.max_subjects),
            alone: MemoryLimits::new(clock.clone(), settings.max_subjects),
            clock,
            ask_again: AtomicU64::new(0),
            spoilt_logged_at: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// The call of a subject, as a limit counts it; `None` if the limit is turned off.
    pub(crate) fn call_of(&self, limit: usize, subject: impl FnOnce() -> Arc<str>) -> Option<LimitedCall> {
        let limit = self.limits.get(limit)?;
        Some(LimitedCall { limit: limit.name.clone(), rate: limit.rate?, subject: subject() })
    }

    /// The element of a call's limit in the list of those that applied: `"sign_in";q=10;w=60`.
    pub(crate) fn policy_of(&self, call: &LimitedCall) -> &str {
        self.limit_of(call).map_or("", |limit| &limit.policy)
    }

    /// Counts a call for all of these limits, or for none. If the backend is away, this node counts alone. Half of the time
    /// until `deadline` is the call's own.
    pub(crate) async fn count(&self, calls: &[LimitedCall], deadline: Option<Instant>) -> LimitVerdict {
        if let Some(states) = self.over.refusal(calls, self.clock.now_us()) {
            let verdict = LimitVerdict { is_counted: false, states: KnownStates::Some(states) };
            self.record(calls, &verdict, |limit| &limit.refused_at_once);
            return verdict;
        }
        let decision = match self.ask(calls, deadline).await {
            Some(decision) => decision,
            None => {
                calls.iter().filter_map(|call| self.limit_of(call)).for_each(|limit| limit.alone.increment(1));
                self.alone.count_now(calls)
            }
        };
        let verdict = LimitVerdict::from(decision);
        self.record(calls, &verdict, |limit| if verdict.is_counted { &limit.counted } else { &limit.refused });
        verdict
    }

    /// Asks the backend; `None` if it is away, or takes too long: a call whose deadline is shorter than the time-outs of the
    /// backend would end of that, and so would all that come after it.
    async fn ask(&self, calls: &[LimitedCall], deadline: Option<Instant>) -> Option<LimitDecision> {
        if !self.may_ask() {
            return None;
        }
        let counted = if self.store.is_local() {
            self.store.count(calls).await
        } else {
            let now = Instant::now();
            let half = deadline.map(|deadline| deadline.saturating_duration_since(now) / 2);
            let patience = half.map_or(PATIENCE, |half| half.min(PATIENCE));
            let late = || BackendError::unavailable("it did not count a call in time");
            timeout_at(now + patience, self.store.count(calls)).await.unwrap_or_else(|_| Err(late()))
        };
        match counted {
            Ok(decision) => {
                if self.ask_again.swap(0, Relaxed) != 0 {
                    info!("the backend counts limits again");
                }
                // Also of a call that took the last of the room: the next one need not ask.
                if !self.store.is_local() && decision.states.iter().any(|state| !state.retry_after.is_zero()) {
                    self.over.add(calls, &decision.states, self.clock.now_us());
                }
                Some(decision)
            }
            // A key of one subject, which says nothing about the others.
            Err(BackendError::WrongKind { key }) => {
                let (now, logged_at) = (self.elapsed_ms(), self.spoilt_logged_at.load(Relaxed));
                let is_due = logged_at == 0 || now - logged_at >= SPOILT_PAUSE.as_millis() as u64;
                if is_due && self.spoilt_logged_at.compare_exchange(logged_at, now, Relaxed, Relaxed).is_ok() {
                    warn!(
                        key,
                        "a key of limits is of another kind: this node counts such calls alone until it is removed"
                    );
                }
                None
            }
            Err(error) => {
                if self.ask_again.swap(self.elapsed_ms() + ALONE.as_millis() as u64, Relaxed) == 0 {
                    let cause = Chain(&error).to_string();
                    warn!(cause, "the backend counts no limits: each node counts alone until it is back");
                }
                None
            }
        }
    }

    /// Whether a call may ask the backend: all of them while it answers, one a second while it does not.
    fn may_ask(&self) -> bool {
        let ask_again = self.ask_again.load(Relaxed);
        if ask_again == 0 {
            return true;
        }
        let now = self.elapsed_ms();
        let next = now + ALONE.as_millis() as u64;
        now >= ask_again && self.ask_again.compare_exchange(ask_again, next, Relaxed, Relaxed).is_ok()
    }

    /// Never zero.
    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    fn limit_of(&self, call: &LimitedCall) -> Option<&ActiveLimit> {
        self.limits.iter().find(|limit| Arc::ptr_eq(&limit.name, &call.limit))
    }

    /// Counts what became of a call: for each limit that counted it, or for those that refused it.
    fn record(&self, calls: &[LimitedCall], verdict: &LimitVerdict, counter: impl Fn(&ActiveLimit) -> &Counter) {
        for (index, call) in calls.iter().enumerate() {
            let is_meant = verdict.is_counted || verdict.state(index).is_some_and(|state| !state.retry_after.is_zero());
            if let Some(limit) = self.limit_of(call).filter(|_| is_meant) {
                counter(limit).increment(1);
            }
        }
    }
}

fn policy(name: &str, rate: LimitRate) -> String {
    format!("\"{name}\";q={};w={}", rate.calls, whole_seconds(rate.window))
}

impl ActiveLimit {
    fn new(name: &str, rate: Option<LimitRate>) -> Self {
        let of = |outcome: &'static str| counter!("phalanx_limited_calls_total", "limit" => name.to_owned(), "outcome" => outcome);
        Self {
            name: name.into(),
            rate,
            policy: rate.map(|rate| policy(name, rate)).unwrap_or_default().into(),
            counted: of("counted"),
            refused: of("refused"),
            refused_at_once: of("refused_at_once"),
            alone: counter!("phalanx_limited_calls_alone_total", "limit" => name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;

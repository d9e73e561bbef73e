//! Attempts that are expected to end at once: the worker's own thread polls them, between the steps of its loop.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::runtime::Handle;

use crate::attempt::{NewAttempt, Reports};
use crate::thread::Turn;

/// The queue of such attempts.
#[derive(Default)]
pub(crate) struct FirstPolls {
    waiting: Mutex<VecDeque<NewAttempt>>,
    reports: Arc<Reports>,
}

impl FirstPolls {
    pub(crate) fn reports(&self) -> &Arc<Reports> {
        &self.reports
    }

    /// Adds an attempt, from within the loop. There are slots for all of them.
    pub(crate) fn add(&self, attempt: NewAttempt) {
        self.waiting().push_back(attempt);
    }

    /// Whether no attempt waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Completes when all that wait were polled: the thread does that whenever the loop is pending.
    pub(crate) async fn polled(&self) {
        poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Polls all that wait, each once. What they spawn is on the runtime of attempts. The caller polls the loop next, unless its
    /// turn is over.
    pub(crate) fn poll_all(&self, runtime: &Handle, turn: &Turn) {
        let _within = runtime.enter();
        while !turn.is_over()
            && let Some(attempt) = self.next()
        {
            turn.step(|| attempt.poll_in_place(runtime));
        }
        if turn.is_over() {
            self.reports.wake();
        }
    }

    fn next(&self) -> Option<NewAttempt> {
        self.waiting().pop_front()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<NewAttempt>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Calls of one script by many callers: those that are ready at the same time, or come while others are under way, go in one.
//!
//! A call by itself costs its node two system calls and two wake-ups, more than most actions. Nothing waits for a call to fill:
//! a caller that is alone is sent at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::backend::BackendError;
use phalanx_core::bound_reached;
use phalanx_core::config::Redis;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::client::spawn_at_home;

/// Most callers that one call of the script serves: Redis serves no other client meanwhile.
const MOST_TOGETHER: usize = 64;

/// Most calls of the script under way.
const MOST_UNDER_WAY: usize = 3;

/// A script that does the same for each of its items, so that none depends on the others.
pub(crate) trait SharedScript: Send + Sync + 'static {
    /// The part of one caller.
    type Item: Send + Sync;
    /// Its reply.
    type Reply: Send;

    /// Runs the script for these items. The replies are in their order.
    fn run(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<SharedReplies<Self::Reply>, BackendError>> + Send;
}

/// The reply to each item, or the error of that item alone.
pub(crate) type SharedReplies<R> = Vec<Result<R, BackendError>>;

/// The callers of a script.
pub(crate) struct SharedCalls<S: SharedScript>(Arc<Calls<S>>);

struct Calls<S: SharedScript> {
    script: S,
    /// The runtime of the connection.
    home: Option<Handle>,
    queue: Mutex<CallQueue<S>>,
}

struct CallQueue<S: SharedScript> {
    waiting: VecDeque<WaitingCall<S>>,
    /// The carriers.
    under_way: usize,
    /// Whether one of them is about to take what waits.
    is_awaited: bool,
}

struct WaitingCall<S: SharedScript> {
    item: S::Item,
    reply: oneshot::Sender<Result<S::Reply, BackendError>>,
}

impl<S: SharedScript> SharedCalls<S> {
    pub(crate) fn new(script: S, home: Option<Handle>) -> Self {
        let queue = Mutex::new(CallQueue { waiting: VecDeque::new(), under_way: 0, is_awaited: false });
        Self(Arc::new(Calls { script, home, queue }))
    }

    /// Runs the script for this item. Dropping the future takes it out of those that wait; one that is under way runs.
    ///
    /// # Errors
    ///
    /// That of the item, or that of the call which carried it. If a call gets no answer, those that waited meanwhile get the
    /// same error, so that none waits much longer than for one call. `Refused` if too many wait.
    pub(crate) async fn call(&self, item: S::Item) -> Result<S::Reply, BackendError> {
        let (reply, answer) = oneshot::channel();
        if self.0.push(WaitingCall { item, reply })? {
            let carrier = Carrier { calls: self.0.clone(), is_done: false };
            drop(spawn_at_home(self.0.home.as_ref(), carrier.run()));
        }
        answer.await.unwrap_or_else(|_| Err(BackendError::unavailable("the node stops")))
    }
}

impl<S: SharedScript> Calls<S> {
    /// Adds a call. Returns whether it needs one more carrier.
    fn push(&self, call: WaitingCall<S>) -> Result<bool, BackendError> {
        let mut queue = self.queue();
        if queue.waiting.len() >= Redis::MAX_SHARED_CALLS {
            bound_reached("redis.shared_calls");
            return Err(BackendError::refused("too many calls wait for redis"));
        }
        queue.waiting.push_back(call);
        let is_needed = !queue.is_awaited && queue.under_way < MOST_UNDER_WAY;
        if is_needed {
            (queue.is_awaited, queue.under_way) = (true, queue.under_way + 1);
        }
        Ok(is_needed)
    }

    fn queue(&self) -> MutexGuard<'_, CallQueue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries calls until none waits.
struct Carrier<S: SharedScript> {
    calls: Arc<Calls<S>>,
    is_done: bool,
}

impl<S: SharedScript> Carrier<S> {
    async fn run(mut self) {
        // Calls of tasks that are ready to run come along.
        yield_now().await;
        while let Some(calls) = self.take() {
            let (items, replies): (Vec<_>, Vec<_>) = calls.into_iter().map(|call| (call.item, call.reply)).unzip();
            match self.calls.script.run(&items).await {
                Ok(answers) => replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(answer))),
                Err(error) => {
                    let is_away = matches!(error, BackendError::Unavailable(_));
                    let waited =
                        if is_away { std::mem::take(&mut self.calls.queue().waiting) } else { VecDeque::new() };
                    for reply in replies.into_iter().chain(waited.into_iter().map(|call| call.reply)) {
                        let _ = reply.send(Err(error.for_another_call()));
                    }
                }
            }
        }
    }

    /// Takes calls whose callers still wait. Without any it is done: the next call has a carrier of its own.
    fn take(&mut self) -> Option<Vec<WaitingCall<S>>> {
        let mut queue = self.calls.queue();
        queue.is_awaited = false;
        while !queue.waiting.is_empty() {
            let count = queue.waiting.len().min(MOST_TOGETHER);
            let calls: Vec<_> = queue.waiting.drain(..count).filter(|call| !call.reply.is_closed()).collect();
            if !calls.is_empty() {
                return Some(calls);
            }
        }
        queue.under_way -= 1;
        self.is_done = true;
        None
    }
}

/// A carrier that ends before its work does leaves no caller behind: its runtime stops, or a reply could not be read.
impl<S: SharedScript> Drop for Carrier<S> {
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = self.calls.queue();
            (queue.under_way, queue.is_awaited) = (queue.under_way - 1, false);
            queue.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests;

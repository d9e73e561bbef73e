//! Answers of the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, FetchedJob, SettleOutcome, Settlement, TaskStore, WorkerReply};
use phalanx_core::job::{AttemptOutcome, JobText};
use phalanx_core::task::TaskFailure;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::compare::{Comparison, ListRequest, StoredList, compare};
use crate::metrics;
use crate::run::{StoreCall, StoreReply, WorkerLoop};
use crate::series::on_series;
use crate::slots::{Slot, SlotState};

/// When a settlement that a spoilt key prevented is tried again.
const SPOILT_PAUSE: Duration = Duration::from_secs(5);

impl WorkerLoop {
    pub(crate) fn on_reply(&mut self, reply: StoreReply) {
        match reply {
            StoreReply::Exchange(first_token, result) => self.on_exchange(first_token, result),
            StoreReply::Attempts(request, result) => self.on_attempts(*request, result),
            StoreReply::ListedAgain(result) => {
                self.is_relisting = false;
                if let Err(error) = result {
                    warn!(%error, "attempts were not listed again");
                    // The next comparison finds those that are not listed.
                    self.is_compare_due = true;
                    self.gate.on_failure(Instant::now());
                } else {
                    self.end_doubt();
                }
            }
            StoreReply::Promotion(result) => {
                self.is_promoting = false;
                match result {
                    Ok(promotion) => {
                        self.next_due_ms = promotion.next_due_ms;
                        if promotion.moved > 0 {
                            self.gate.on_woken(Instant::now());
                        } else {
                            self.timers.pause_promotion(); // another node promotes
                        }
                    }
                    Err(error) => {
                        warn!(%error, "delayed jobs were not promoted");
                        self.timers.pause_promotion();
                    }
                }
            }
            StoreReply::Parked(result, unattended) => {
                self.is_looking_for_parked = false;
                self.on_unattended(unattended);
                self.parked = result.unwrap_or_default();
                self.parked.retain(|class| self.engine.registry().task(class).is_some());
            }
            StoreReply::Shown(result) => self.on_shown(result),
            StoreReply::Series(result) => on_series(result),
            StoreReply::Stats(result) => {
                self.is_counting = false;
                if let Ok(stats) = result {
                    let stored: Vec<String> = stats.queues.iter().map(|(queue, _)| queue.clone()).collect();
                    self.set_queues(&stored);
                    self.set_turns(&stats.in_turns);
                    let served = |queue: &str| self.queues.contains(queue);
                    metrics::record_stats(&stats, self.engine.clock().now_ms(), served);
                }
            }
        }
    }

    fn on_exchange(&mut self, first_token: u64, result: Result<WorkerReply, BackendError>) {
        let Some(at) = self.open.iter().position(|call| call.offered.start == first_token) else { return };
        let call = self.open.swap_remove(at);
        let now = Instant::now();
        match result {
            Ok(reply) => self.on_answer(call, reply, now),
            Err(error) => {
                metrics::record_call_failure();
                self.parked.clear();
                self.gate.on_failure(now);
                self.is_compare_due = true;
                match error {
                    // Nothing has changed: the settlements are sent again, in their order.
                    BackendError::Refused(_) | BackendError::Full => {
                        warn!(%error, "the store refused a call of the worker");
                        self.send_again(call.settlements);
                    }
                    error => {
                        warn!(%error, "a call of the worker was not answered");
                        self.unknown.push(call);
                    }
                }
            }
        }
    }

    /// Queues settlements that had no effect once more, in their order.
    fn send_again(&mut self, settlements: Arc<Vec<Settlement>>) {
        let settlements = Arc::unwrap_or_clone(settlements);
        settlements.into_iter().rev().for_each(|settlement| self.ready.push_front(settlement));
    }

    fn on_answer(&mut self, call: StoreCall, reply: WorkerReply, now: Instant) {
        if reply.is_reaped {
            // The node learns from its lease whether it was taken for dead, or the store lost its data. Only then is it known
            // what becomes of the settlements: under another generation they are dropped.
            self.gate.on_failure(now);
            self.is_compare_due = true;
            self.in_doubt = Some(call.generation);
            return self.send_again(call.settlements);
        }
        if call.is_for_parked {
            self.gate.on_reply(now, 0, 0, false);
            if reply.fetched.len() < call.wanted() {
                self.parked.clear();
                self.gate.on_woken(now);
            }
        } else {
            self.gate.on_reply(now, call.wanted(), reply.fetched.len(), reply.has_more);
            self.next_due_ms = reply.next_due_ms;
        }
        for held_up in &reply.held_up {
            metrics::record_held_up(held_up);
            held_up.opens_in.into_iter().for_each(|opens_in| self.gate.on_rate(now, opens_in));
        }
        metrics::record_spoilt(reply.spoilt.len());
        for queue in &reply.spoilt {
            error!(queue, "a key of the task queue is spoilt: it is passed over");
        }
        let mut answers = reply.settled.into_iter();
        for settlement in Arc::unwrap_or_clone(call.settlements) {
            match answers.next() {
                Some(answer) => self.on_settled(settlement, answer, now),
                None => self.ready.push_back(settlement), // a reply that is too short is not trusted
            }
        }
        for job in reply.fetched {
            // Nor is one with tokens that were not offered.
            if call.offered.contains(&job.attempt.token) {
                let is_deleted = reply.deleted.contains(&job.attempt.token);
                self.begin(call.generation, job, is_deleted, now);
            }
        }
        self.metrics.record_slots(self.slots.len(), self.slots.blocked());
    }

    fn on_settled(&mut self, settlement: Settlement, answer: SettleOutcome, now: Instant) {
        let token = settlement.attempt.token;
        let (is_ours, is_in_doubt) =
            (self.slots.generation(token) == Some(self.engine.node().generation()), self.is_in_doubt());
        let Some(SlotState::Settling(settling)) = self.slots.get_mut(token).map(|slot| &mut slot.state) else { return };
        let is_repeated = settling.is_repeated;
        match answer {
            SettleOutcome::Spoilt { key } => {
                metrics::record_spoilt(1);
                error!(key, "a key of the task queue is spoilt: an attempt cannot be settled");
                self.slots.set_stuck(token);
                self.spoilt.push_back((now + SPOILT_PAUSE, settlement));
            }
            SettleOutcome::ClaimLost => {
                if self.slots.get_mut(token).is_some_and(|slot| !slot.is_unique_until_start) {
                    metrics::record_unique_lost();
                }
                self.on_end(token, true, now);
            }
            SettleOutcome::Accepted => self.on_end(token, true, now),
            // A node that has its lease loses no attempt but by its own settlement: the store has lost it, and it is to be listed
            // again. A job that is to run again, or has failed, would be lost with it. So too one that came after the store lost the
            // attempt, and before that was listed again.
            SettleOutcome::Superseded if is_ours && !settling.is_doubted && (is_in_doubt || !is_repeated) => {
                settling.is_doubted = true;
                self.in_doubt = Some(self.engine.node().generation());
                self.is_compare_due = true;
                self.ready.push_front(settlement);
            }
            // Its first sending took effect, and the answer was lost.
            SettleOutcome::Superseded => self.on_end(token, is_repeated, now),
        }
    }

    /// Frees the slot of an attempt that was settled. A thread that has not returned keeps it.
    fn on_end(&mut self, token: u64, is_accepted: bool, now: Instant) {
        let Some(mut slot) = self.slots.remove(token) else { return };
        let SlotState::Settling(settling) = std::mem::replace(&mut slot.state, SlotState::Settled) else { return };
        let outcome = if is_accepted { settling.outcome } else { AttemptOutcome::Superseded };
        self.record(&slot, settling.task.as_ref(), outcome, now);
        if is_accepted && let Some((task, facts, reason)) = settling.failure {
            let (exception, error) = (reason.exception, reason.error);
            let failure = TaskFailure::new(exception, error, slot.key().counters.attempts, slot.job.text.clone());
            self.run_on_failed(task, facts, failure);
        }
        if slot.is_blocked {
            self.slots.insert(slot);
        }
    }

    /// Requests the store's list of this node's attempts, if calls whose answers were lost cannot take effect any more.
    pub(crate) fn request_list(&mut self) {
        let (now, now_us) = (Instant::now(), self.engine.clock().now_us());
        // The store's clock may have been set back. A call that takes effect after the list is found by the next one.
        let may_take_effect = |call: &StoreCall| {
            now_us <= call.fetch_until_us + MARGIN_US && now <= call.over_by + Duration::from_micros(MARGIN_US)
        };
        if self.is_listing || self.is_relisting || self.unknown.iter().any(may_take_effect) {
            return;
        }
        self.is_listing = true;
        self.is_compare_due = false;
        let generation = self.engine.node().generation();
        self.listing = std::mem::take(&mut self.unknown);
        self.listing.retain(|call| call.generation == generation);
        let unanswered = self.listing.iter_mut().map(|call| std::mem::take(&mut call.settlements));
        let unanswered = unanswered.flat_map(Arc::unwrap_or_clone).collect();
        let mut request = ListRequest {
            generation,
            held: self.slots.tokens(),
            standing: HashSet::new(),
            repeated: HashSet::new(),
            open: self.open.iter().map(|call| call.offered.clone()).collect(),
            bound: self.tokens.next(),
            unanswered,
            is_in_doubt: self.in_doubt == Some(generation),
        };
        let waiting = self.waiting_tokens();
        for slot in self.slots.iter().filter(|slot| slot.generation == generation) {
            let token = slot.key().token;
            match &slot.state {
                SlotState::Running(_) => request.standing.insert(token),
                SlotState::Settling(settling) if waiting.contains(&token) => {
                    let of_its_kind = if settling.is_repeated { &mut request.repeated } else { &mut request.standing };
                    of_its_kind.insert(token)
                }
                SlotState::Settling(_) | SlotState::Settled => false,
            };
        }
        let store = self.store.clone();
        self.replies.push(Box::pin(async move {
            let listed = read_list(&*store, &request).await;
            StoreReply::Attempts(Box::new(request), listed)
        }));
    }

    fn on_attempts(&mut self, mut request: ListRequest, result: Result<StoredList, BackendError>) {
        self.is_listing = false;
        let mut calls = std::mem::take(&mut self.listing);
        let generation = self.engine.node().generation();
        if request.generation != generation {
            // Those attempts are other nodes' by now, and `check_slots` drops them: adopted under the new name of this node
            // they would run twice.
            self.is_compare_due = true;
            return;
        }
        let StoredList { jobs: listed, deleted } = match result {
            Ok(listed) => listed,
            Err(error) => {
                warn!(%error, "the attempts of this node cannot be listed");
                self.is_compare_due = true;
                self.gate.on_failure(Instant::now());
                // The next list shows what they fetched. Their settlements count with the calls that repeat them.
                calls.iter_mut().for_each(|call| call.frees = 0);
                self.unknown.extend(calls);
                // Sent again without knowing: a repeat is no fault.
                request.unanswered.into_iter().for_each(|settlement| self.repeat(settlement));
                return;
            }
        };
        // A settlement that was sent since then may have taken effect before the list was read.
        let waiting = self.waiting_tokens();
        request.standing.retain(|token| self.standing_job(generation, *token, &waiting).is_some());
        request.repeated.retain(|token| waiting.contains(token));
        let Comparison { repeat, settled, adopt, missing } = compare(request, listed);
        repeat.into_iter().for_each(|settlement| self.repeat(settlement));
        let now = Instant::now();
        settled.into_iter().for_each(|settlement| self.on_end(settlement.attempt.token, true, now));
        if !adopt.is_empty() {
            metrics::record_adopted(adopt.len());
            for job in adopt {
                let is_deleted = deleted.contains(&job.attempt.token);
                self.begin(generation, job, is_deleted, now);
            }
        }
        let waiting = self.waiting_tokens();
        let lost = missing.into_iter().filter_map(|token| self.standing_job(generation, token, &waiting));
        let lost: Vec<FetchedJob> = lost.collect();
        if lost.is_empty() {
            self.end_doubt();
        } else {
            warn!(attempts = lost.len(), "the store lost attempts that were not settled: they are listed again");
            self.in_doubt = Some(generation);
            self.is_relisting = true;
            let (store, limited) = (self.store.clone(), self.limited.clone());
            let tracked: Vec<Arc<str>> = lost.iter().filter_map(|job| self.tracked_id(job)).collect();
            self.replies.push(Box::pin(async move {
                StoreReply::ListedAgain(store.list_again(generation, &lost, &limited, &tracked).await)
            }));
        }
    }

    /// The id of a job whose task is tracked.
    fn tracked_id(&self, job: &FetchedJob) -> Option<Arc<str>> {
        let text = JobText::read(&job.text)?;
        self.engine.registry().task(&text.class).filter(|task| task.def.tracked)?;
        text.id.map(|id| id.as_ref().into())
    }

    /// The job of an attempt that runs, or whose settlement waits.
    fn standing_job(&self, of: Generation, token: u64, waiting: &HashSet<u64>) -> Option<FetchedJob> {
        let slot = self.slots.get(token).filter(|slot| slot.generation == of)?;
        let stands = match slot.state {
            SlotState::Running(_) => true,
            SlotState::Settling(_) => waiting.contains(&token),
            SlotState::Settled => false,
        };
        stands.then(|| slot.job.clone())
    }

    /// The tokens of settlements that are not under way.
    fn waiting_tokens(&self) -> HashSet<u64> {
        let waiting = self.ready.iter().chain(self.spoilt.iter().map(|(_, settlement)| settlement));
        waiting.map(|settlement| settlement.attempt.token).collect()
    }

    /// All attempts are listed, unless there was a new doubt since the list was requested.
    fn end_doubt(&mut self) {
        if !self.is_compare_due {
            self.in_doubt = None;
        }
    }

    /// Sends a settlement again whose answer was lost.
    fn repeat(&mut self, settlement: Settlement) {
        if let Some(Slot { state: SlotState::Settling(settling), .. }) = self.slots.get_mut(settlement.attempt.token) {
            settling.is_repeated = true;
            self.ready.push_back(settlement);
        }
    }
}

/// Reads the list. The answer that said which jobs were deleted while they waited may be the one that was lost.
async fn read_list(store: &dyn TaskStore, request: &ListRequest) -> Result<StoredList, BackendError> {
    let jobs = store.attempts(request.generation).await?;
    let strays: Vec<FetchedJob> =
        jobs.iter().filter(|job| !request.held.contains(&job.attempt.token)).cloned().collect();
    let deleted = if strays.is_empty() { Vec::new() } else { store.deleted_of(request.generation, &strays).await? };
    Ok(StoredList { jobs, deleted })
}

/// By how much the node's idea of the store's time may be wrong.
const MARGIN_US: u64 = 500_000;

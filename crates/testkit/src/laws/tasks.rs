//! Laws of tasks, a file for each subject, and what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptEnd, BackendError, Consequences, EnqueueOutcome, FetchedJob, JobCounters, JobState, NewJob, SettleOutcome,
    Settlement, StoredStatus, TaskStore, UniqueClaim, WorkerCall, WorkerReply,
};
use phalanx_core::job::{FailedRecord, JobText};

mod batches;
mod checkpoints;
mod ends;
mod enqueue;
mod exchange;
mod follow_ups;
mod limits;
mod moves;
mod operations;
mod queue_limits;
mod reports;
mod running;
mod series;
mod ticks;
mod turns;

pub use self::{
    batches::*, checkpoints::*, ends::*, enqueue::*, exchange::*, follow_ups::*, limits::*, moves::*, operations::*,
    queue_limits::*, reports::*, running::*, series::*, ticks::*, turns::*,
};

/// Turns each law of tasks into a test: `task_laws!(memory: make())`.
#[macro_export]
macro_rules! task_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            tasks,
            $backend,
            $make,
            [
                jobs_are_fetched_in_the_order_of_their_enqueue,
                queues_are_served_in_their_order,
                a_job_is_returned_byte_for_byte_by_every_way,
                an_id_names_one_content,
                a_claim_has_one_job_until_that_is_over,
                a_claim_that_another_job_has_by_then_is_reported,
                a_claim_is_released_by_the_job_that_has_it,
                a_job_is_fetched_when_it_is_due,
                an_enqueue_after_its_deadline_stores_nothing,
                an_attempt_is_settled_once,
                a_call_after_its_deadline_settles_and_fetches_nothing,
                a_retry_counts_the_attempt_and_a_snooze_does_not,
                a_job_that_is_given_back_is_the_next_one,
                retried_and_fresh_jobs_take_turns,
                a_dropped_job_is_over_and_counts_as_nothing,
                a_failed_job_is_listed_removed_and_retried,
                a_hundred_failed_jobs_are_taken_at_once,
                a_retry_of_a_failed_job_needs_its_claim,
                a_paused_queue_keeps_its_jobs,
                no_more_jobs_are_fetched_than_wanted,
                no_more_bytes_are_fetched_than_allowed,
                no_more_jobs_of_a_queue_are_fetched_than_its_limit,
                no_more_jobs_of_a_queue_run_in_the_cluster_than_its_limit,
                a_limit_keeps_no_jobs_of_other_queues,
                a_repeated_settlement_makes_room_once,
                a_member_of_a_batch_makes_room_at_its_end,
                the_attempts_of_a_dead_node_take_no_room,
                attempts_that_are_listed_again_take_room_at_once,
                a_parked_job_waits_for_room_in_its_queue,
                a_parked_suspect_of_a_queue_at_its_limit_stays_parked,
                jobs_of_a_queue_begin_by_its_rate,
                a_settlement_that_makes_room_in_a_queue_at_its_limit_wakes,
                jobs_of_one_key_keep_none_of_others_waiting,
                a_key_whose_jobs_come_one_by_one_keeps_none_of_others_waiting,
                a_node_takes_its_share_of_the_jobs_of_many_keys,
                jobs_with_and_without_keys_take_turns,
                a_job_that_comes_back_takes_its_turn,
                jobs_that_take_turns_are_listed_found_and_deleted,
                a_member_of_a_batch_takes_its_turn_and_the_completion_too,
                jobs_of_further_keys_share_a_turn,
                the_end_of_a_text_has_the_key,
                a_queue_with_a_limit_has_turns,
                a_rate_and_a_pause_hold_up_turns,
                attempts_of_a_dead_node_have_the_next_turns_of_their_keys,
                a_tick_is_skipped_while_the_job_of_the_last_one_waits_for_its_turn,
                an_enqueue_of_a_job_that_takes_turns_wakes,
                one_suspect_is_fetched_at_a_time,
                due_jobs_are_promoted_in_batches,
                attempts_of_a_dead_node_go_back_and_count_a_death,
                many_attempts_of_a_dead_node_go_back_in_batches,
                the_third_death_convicts,
                a_reap_of_a_node_that_came_back_is_a_stall,
                a_job_that_failed_in_no_attempt_is_taken_once_by_its_class,
                the_last_jobs_that_failed_in_no_attempt_are_kept,
                a_parked_job_waits_for_a_node_that_knows_its_class,
                a_parked_job_that_is_not_to_be_fetched_stays_parked,
                a_job_that_was_parked_for_too_long_fails,
                a_delayed_job_is_deleted_with_its_claim,
                a_waiting_job_that_was_deleted_is_marked_when_it_is_fetched,
                a_running_job_that_was_deleted_is_to_be_cancelled,
                a_failed_job_is_deleted,
                the_reaper_drops_deleted_jobs,
                the_state_of_a_job_follows_it,
                progress_is_kept_as_long_as_its_attempt_is_listed,
                a_report_of_an_attempt_that_is_over_changes_nothing,
                a_result_is_shown_from_the_end_of_its_job_on,
                a_report_of_a_job_without_an_id_names_its_attempt,
                the_end_of_a_tracked_job_reaches_those_who_wait,
                the_end_of_a_tracked_job_that_is_listed_again_is_awaited,
                the_end_of_a_job_that_is_not_tracked_is_not_awaited,
                a_result_that_is_missing_says_why,
                the_end_of_a_job_that_no_attempt_ends_is_awaited_too,
                a_failed_job_that_runs_again_is_awaited_anew,
                the_numbers_of_the_queue_add_up,
                the_counts_of_a_minute_add_up,
                a_minute_has_a_bounded_number_of_tasks,
                tokens_count_on,
                a_queue_may_have_any_name,
                attempts_are_listed_again,
                waiting_jobs_are_listed,
                running_attempts_are_listed,
                the_age_of_the_oldest_job_of_a_queue_is_known,
                the_age_of_the_oldest_job_counts_those_that_take_turns,
                an_enqueue_wakes,
                a_tick_is_enqueued_once_whichever_nodes_ask,
                the_ticks_of_many_tasks_are_one_call,
                a_task_that_appears_does_not_tick_for_the_past,
                a_tick_is_not_enqueued_before_the_stores_clock_has_come_to_it,
                a_tick_that_was_missed_may_be_left_out,
                a_tick_is_skipped_until_the_job_of_the_last_one_is_over,
                a_last_tick_beyond_the_next_one_counts_as_none,
                the_last_tick_is_raised_to_the_highest_that_a_node_knows,
                of_two_schedules_that_of_the_node_that_began_last_counts,
                a_tick_wakes,
                the_call_that_settles_the_last_member_fetches_the_completion,
                many_members_of_a_batch_are_settled_at_once,
                a_batch_that_is_not_sealed_does_not_end,
                an_empty_batch_ends_when_it_is_sealed,
                a_batch_without_a_completion_ends_too,
                a_member_counts_once,
                a_member_that_runs_again_does_not_count,
                a_member_that_ends_in_no_attempt_counts,
                a_batch_that_was_sealed_takes_no_members,
                members_that_are_there_already_are_known_after_the_seal,
                a_member_that_is_not_stored_does_not_count,
                a_batch_ends_at_its_deadline_once,
                a_delayed_job_waits_while_a_batch_expires,
                the_end_of_a_tracked_completion_is_waited_for,
                a_member_that_is_tracked_unique_and_limited_ends_with_all_of_that,
                the_deadline_and_the_end_of_a_batch_wake,
                a_checkpoint_is_kept_until_its_job_succeeds,
                a_checkpoint_is_not_handed_to_a_later_job_of_its_id,
                a_checkpoint_is_not_handed_to_a_later_follow_on_job_of_its_id,
                a_checkpoint_has_an_end,
                follow_on_jobs_are_stored_with_the_success_of_their_job,
                the_end_of_a_tracked_follow_on_job_is_awaited,
                follow_on_jobs_of_another_end_are_not_stored,
                several_jobs_with_follow_on_jobs_are_settled_at_once,
                a_follow_on_job_that_is_there_already_is_not_stored_again,
                a_settlement_that_comes_too_late_stores_no_follow_on_jobs,
                a_follow_on_job_is_not_deleted_with_an_earlier_job_of_its_id,
            ]
        );
    };
}

type SharedTasks = Arc<dyn TaskStore>;

/// A time that does not come.
const NEVER_US: u64 = u64::MAX / 4;

/// The most bytes of a call, unless the law is about them.
const MANY_BYTES: usize = 256 * 1024;

/// A token as nodes count them, from the µs of their start: Lua writes such a number with an exponent by default.
const FIRST_TOKEN: u64 = 1_795_959_890_195_300;

/// The generations of the laws: both have a lease where the store checks that, and the first has the claim on the second.
pub fn nodes() -> [Generation; 2] {
    ["aaaaaaaaaa", "bbbbbbbbbb"].map(|name| Generation::parse(name).expect("ten characters of base32"))
}

fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(elapsed.as_millis()).expect("a time of this age")
}

/// A job of the queue `q`.
pub fn job(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}"}}"#);
    NewJob::new(id, "q", text)
}

fn claiming(id: &str, key: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","unique":"{key}"}}"#);
    let unique = Some(UniqueClaim { key: key.into(), ttl_ms: 600_000 });
    NewJob { text: text.into(), unique, ..job(id) }
}

/// Stores jobs.
pub async fn enqueue(store: &SharedTasks, jobs: &[NewJob]) -> Vec<EnqueueOutcome> {
    store.enqueue(jobs, NEVER_US).await.expect("the backend answers")
}

fn id_of(job: &FetchedJob) -> String {
    JobText::read(&job.text).and_then(|text| text.id).expect("jobs of laws have ids").into_owned()
}

fn ids_of(jobs: &[FetchedJob]) -> Vec<String> {
    jobs.iter().map(id_of).collect()
}

/// The settlement of a job of these laws.
pub fn settlement(job: &FetchedJob, end: AttemptEnd) -> Settlement {
    let text = JobText::read(&job.text);
    let (id, unique, batch) = text.map(|text| (text.id, text.unique, text.batch)).unwrap_or_default();
    let own = |text: std::borrow::Cow<'_, str>| text.as_ref().into();
    let consequences =
        batch.map(|batch| Box::new(Consequences { member: Some(own(batch)), ..Consequences::default() }));
    let (id, unique) = (id.map(own), unique.map(own));
    Settlement { attempt: job.attempt.clone(), id, end, unique, report: None, consequences }
}

async fn status(store: &SharedTasks, id: &str) -> StoredStatus {
    store.status(id).await.expect("the backend answers")
}

async fn state(store: &SharedTasks, id: &str) -> JobState {
    status(store, id).await.state
}

/// The end of an attempt with a record.
pub fn failure(job: &FetchedJob) -> AttemptEnd {
    let record = FailedRecord {
        worker: "w:1",
        queue: &job.attempt.queue,
        text: &job.text,
        exception: "internal",
        error: "it broke",
        failed_at_ms: now_ms(),
        counters: job.attempt.counters,
    };
    AttemptEnd::Failed { record: record.write() }
}

/// A node that runs jobs.
pub struct LawWorker {
    store: SharedTasks,
    generation: Generation,
    token: AtomicU64,
    queues: Vec<Arc<str>>,
}

impl std::fmt::Debug for LawWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LawWorker({})", self.generation)
    }
}

impl LawWorker {
    /// The first node, or the second.
    pub fn new(store: &SharedTasks, number: usize) -> Self {
        Self::serving(store, nodes()[number], &["q"])
    }

    /// A node that serves these queues.
    pub fn serving(store: &SharedTasks, generation: Generation, queues: &[&str]) -> Self {
        let queues = queues.iter().map(|queue| Arc::from(*queue)).collect();
        Self { store: store.clone(), generation, token: AtomicU64::new(FIRST_TOKEN), queues }
    }

    /// Calls with changes to what a call of this worker is.
    pub async fn call(
        &self,
        settlements: &[Settlement],
        wanted: usize,
        change: impl FnOnce(&mut WorkerCall<'_>),
    ) -> WorkerReply {
        self.try_call(settlements, wanted, change).await.expect("the backend answers")
    }

    /// The same, where the answer may be lost.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn try_call(
        &self,
        settlements: &[Settlement],
        wanted: usize,
        change: impl FnOnce(&mut WorkerCall<'_>),
    ) -> Result<WorkerReply, BackendError> {
        let mut call = self.next_call(settlements, wanted);
        change(&mut call);
        self.store.exchange(&call).await
    }

    /// Fetches.
    pub async fn fetch(&self, wanted: usize) -> Vec<FetchedJob> {
        self.call(&[], wanted, |_| {}).await.fetched
    }

    /// Fetches parked jobs of some classes.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn take_parked(&self, classes: &[&str], wanted: usize) -> Result<WorkerReply, BackendError> {
        self.take_parked_with(classes, wanted, |_| {}).await
    }

    /// The same with changes to what a call of this worker is.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn take_parked_with<'a>(
        &'a self,
        classes: &[&str],
        wanted: usize,
        change: impl FnOnce(&mut WorkerCall<'a>),
    ) -> Result<WorkerReply, BackendError> {
        let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
        let mut call = self.next_call(&[], wanted);
        change(&mut call);
        self.store.take_parked(&call, &classes).await
    }

    /// Uses up some tokens.
    pub fn skip_tokens(&self, count: u64) {
        self.token.fetch_add(count, Relaxed);
    }

    fn next_call<'a>(&'a self, settlements: &'a [Settlement], wanted: usize) -> WorkerCall<'a> {
        WorkerCall {
            generation: self.generation,
            settlements,
            first_token: self.token.fetch_add(100, Relaxed),
            wanted,
            queues: &self.queues,
            limits: &[],
            limited: &[],
            fetch_until_us: NEVER_US,
            takes_suspect: true,
            max_bytes: MANY_BYTES,
        }
    }

    /// Fetches the only job that is there.
    pub async fn fetch_one(&self) -> FetchedJob {
        let mut fetched = self.fetch(2).await;
        assert_eq!(fetched.len(), 1, "{fetched:?}");
        fetched.remove(0)
    }

    /// Settles an attempt.
    pub async fn settle(&self, job: &FetchedJob, end: AttemptEnd) -> SettleOutcome {
        let mut settled = self.call(&[settlement(job, end)], 0, |_| {}).await.settled;
        assert_eq!(settled.len(), 1);
        settled.remove(0)
    }
}

fn counters(attempts: u32, deaths: u32) -> JobCounters {
    JobCounters { attempts, deaths, stalls: 0 }
}

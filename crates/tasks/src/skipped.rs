//! Ticks that are left out for long because the job of an earlier one has the claim of its task. If another program took that
//! job from its queue, nothing would release the claim as long as the queue has other jobs: a script cannot search these.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{BackendError, JobState, TaskStore};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// How long ticks are left out before the job is searched, which reads its whole queue; the pause doubles up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(7200));

/// The time between two searches that both find it nowhere: one may miss a job that changes its place.
const AGAIN: Duration = Duration::from_secs(60);

/// When to search for the job of a task's last tick.
#[derive(Debug, Default)]
pub(crate) struct SkippedTicks(Option<(Instant, Duration)>);

impl SkippedTicks {
    /// Returns whether to search, after a call by which ticks were skipped, or were enqueued.
    pub(crate) fn observe(&mut self, now: Instant, skipped: usize, enqueued: usize) -> bool {
        if enqueued > 0 {
            self.0 = None;
        } else if skipped > 0 {
            let (at, pause) = *self.0.get_or_insert((now + PAUSES.0, PAUSES.0));
            if now >= at {
                let longer = (pause * 2).min(PAUSES.1);
                self.0 = Some((now + longer, longer));
                return true;
            }
        }
        false
    }
}

/// Releases a claim whose job is nowhere.
pub(crate) async fn release_if_gone(store: Arc<dyn TaskStore>, task: &'static str, claim: Arc<str>) {
    match search(&*store, &claim, AGAIN).await {
        Ok(Some(job)) => {
            warn!(task, job, "the job of a tick is nowhere: another program may have taken it; ticks go on")
        }
        Ok(None) => {}
        Err(error) => debug!(%error, task, "whether the job of the last tick is still there is not known"),
    }
}

/// Returns the job that was nowhere, and has lost the claim.
async fn search(store: &dyn TaskStore, claim: &str, again: Duration) -> Result<Option<String>, BackendError> {
    let Some(job) = store.claimant(claim).await? else { return Ok(None) };
    for pause in [Duration::ZERO, again] {
        sleep(pause).await;
        if store.status(&job).await?.state != JobState::Unknown {
            return Ok(None);
        }
    }
    Ok(store.release(claim, &job).await?.then(|| job.to_string()))
}

#[cfg(test)]
mod tests {
    use phalanx_core::Generation;
    use phalanx_core::backend::{AttemptEnd, NewJob, Settlement, SystemClock, UniqueClaim, WorkerCall};
    use phalanx_core::memory::MemoryTasks;

    use super::*;

    #[test]
    fn a_job_is_searched_seldom_and_more_seldom_until_a_tick_is_enqueued() {
        let (start, mut ticks) = (Instant::now(), SkippedTicks::default());
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        for (at, skipped, enqueued, searches) in [
            (0, 1, 0, false),
            (9, 1, 0, false),
            (10, 0, 0, false), // another node was faster
            (10, 1, 0, true),
            (29, 1, 0, false),
            (30, 2, 0, true),
            (69, 1, 0, false),
            (70, 1, 0, true),
            (400, 1, 0, true),
            (519, 1, 0, false),
            (520, 1, 0, true),
            (521, 0, 1, false),
            (700, 1, 0, false),
            (710, 1, 0, true),
        ] {
            assert_eq!(ticks.observe(minutes(at), skipped, enqueued), searches, "{at}");
        }
    }

    #[tokio::test]
    async fn a_claim_is_released_only_if_its_job_is_nowhere() {
        let store = MemoryTasks::new(Arc::new(SystemClock::new()), 10);
        let unique = Some(UniqueClaim { key: "k".into(), ttl_ms: 60_000 });
        let job = NewJob { unique, ..NewJob::new("a", "q", r#"{"class":"c","queue":"q","args":[],"id":"a"}"#) };
        let searched = async || search(&store, "k", Duration::from_millis(1)).await.unwrap();
        assert_eq!(searched().await, None, "no job has it");
        store.enqueue(&[job], u64::MAX).await.unwrap();
        assert_eq!(searched().await, None, "it waits");
        let mut call = WorkerCall {
            generation: Generation::random(),
            settlements: &[],
            first_token: 1,
            wanted: 1,
            queues: &["q".into()],
            limits: &[],
            limited: &[],
            fetch_until_us: u64::MAX,
            takes_suspect: true,
            max_bytes: 1000,
        };
        let attempt = store.exchange(&call).await.unwrap().fetched.remove(0).attempt;
        assert_eq!(searched().await, None, "it runs");
        // It is gone without its claim.
        let gone = [Settlement {
            attempt,
            id: None,
            end: AttemptEnd::Dropped,
            unique: None,
            report: None,
            consequences: None,
        }];
        (call.settlements, call.wanted) = (&gone, 0);
        store.exchange(&call).await.unwrap();
        assert_eq!(searched().await.as_deref(), Some("a"));
        assert_eq!(store.claimant("k").await.unwrap(), None);
    }
}

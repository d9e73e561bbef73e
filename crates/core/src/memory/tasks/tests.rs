//! The laws of the seam are tested for both backends; here is what only this one does.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::backend::{AttemptEnd, JobState, SettleOutcome, Settlement, SystemClock, UniqueClaim};

fn job(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"a","queue":"q","args":[],"id":"{id}","unique":"u-{id}"}}"#);
    NewJob::new(id, "q", text)
}

fn store(failed_max: usize) -> MemoryTasks {
    MemoryTasks::new(Arc::new(SystemClock::new()), failed_max)
}

async fn fetch(store: &MemoryTasks, first_token: u64, settlements: &[Settlement]) -> WorkerReply {
    let queues = ["q".into()];
    let call = WorkerCall {
        generation: Generation::parse("aaaaaaaaaa").unwrap(),
        settlements,
        first_token,
        wanted: 1,
        queues: &queues,
        limits: &[],
        limited: &[],
        fetch_until_us: u64::MAX,
        takes_suspect: true,
        max_bytes: 1000,
    };
    store.exchange(&call).await.unwrap()
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_failed_job_is_dropped() {
    let store = store(2);
    let jobs = ["a", "b", "c"].map(job);
    store.enqueue(&jobs, u64::MAX).await.unwrap();
    for token in 1..=3 {
        let fetched = fetch(&store, token, &[]).await.fetched.remove(0);
        let id: Arc<str> = ["a", "b", "c"][token as usize - 1].into();
        let record = FailedRecord {
            worker: "w",
            queue: "q",
            text: &fetched.text,
            exception: "internal",
            error: "",
            failed_at_ms: 0,
            counters: fetched.attempt.counters,
        };
        let end = AttemptEnd::Failed { record: record.write() };
        let settlement =
            Settlement { attempt: fetched.attempt, id: Some(id), end, unique: None, report: None, consequences: None };
        assert_eq!(fetch(&store, 100, &[settlement]).await.settled, [SettleOutcome::Accepted]);
        if token < 3 {
            // The call above fetched the next job too: it is given back.
            let again = store.attempts(Generation::parse("aaaaaaaaaa").unwrap()).await.unwrap().remove(0);
            let give_back = Settlement {
                attempt: again.attempt,
                id: None,
                end: AttemptEnd::GiveBack,
                unique: None,
                report: None,
                consequences: None,
            };
            let queues: [Arc<str>; 0] = [];
            let call = WorkerCall {
                generation: Generation::parse("aaaaaaaaaa").unwrap(),
                settlements: &[give_back],
                first_token: 0,
                wanted: 0,
                queues: &queues,
                limits: &[],
                limited: &[],
                fetch_until_us: 0,
                takes_suspect: false,
                max_bytes: 0,
            };
            store.exchange(&call).await.unwrap();
        }
    }
    let failed: Vec<_> = store.failed(0, 10).await.unwrap().iter().map(|record| FailedJob::read(record).id).collect();
    assert_eq!(failed, [Some("b".to_owned()), Some("c".to_owned())]);
    assert_eq!(store.status("a").await.unwrap().state, JobState::Unknown);
    assert_eq!(store.status("b").await.unwrap().state, JobState::Failed);
}

#[tokio::test]
async fn a_deleted_delayed_job_releases_its_claim() {
    let store = store(2);
    let unique = Some(UniqueClaim { key: "u-a".into(), ttl_ms: 60_000 });
    let delayed = NewJob { due_ms: Some(u64::MAX), unique: unique.clone(), ..job("a") };
    assert_eq!(store.enqueue(&[delayed], u64::MAX).await.unwrap(), [EnqueueOutcome::Stored]);
    let second = NewJob { unique, ..job("b") };
    let existing = [EnqueueOutcome::Existing("a".into())];
    assert_eq!(store.enqueue(std::slice::from_ref(&second), u64::MAX).await.unwrap(), existing);
    assert_eq!(store.delete("a").await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(store.enqueue(&[second], u64::MAX).await.unwrap(), [EnqueueOutcome::Stored]);
}

/// A clock that is put forward at once.
#[derive(Default)]
struct JumpingClock(Mutex<Vec<Arc<Notify>>>);

impl Clock for JumpingClock {
    fn now_us(&self) -> u64 {
        0
    }

    fn on_advance(&self, wake: &Arc<Notify>) {
        self.0.lock().unwrap().push(wake.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn workers_are_woken_when_the_clock_is_put_forward() {
    let clock = Arc::<JumpingClock>::default();
    let store = MemoryTasks::new(clock.clone(), 10);
    assert!(timeout(Duration::from_secs(60), store.woken()).await.is_err(), "nothing has happened");
    clock.0.lock().unwrap().iter().for_each(|wake| wake.notify_one());
    timeout(Duration::from_secs(60), store.woken()).await.expect("a job may be due");
}

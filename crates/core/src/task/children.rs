//! The jobs that an attempt enqueues: the ids of those that it enqueues at once, and those that follow on its success.
//!
//! An attempt may run again, because its node died or because it failed. So the jobs that it enqueues have ids made of its own
//! job's and a number, by which the second run finds those of the first; so have the batches that it creates, in which the second run
//! goes on. The number is made of the job's content, and counts those of the same content: it is the same in each run, in whichever
//! order the jobs are enqueued.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::control::TaskControl;
use crate::backend::NewJob;
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// Most bytes of an id, and of a unique key.
pub(super) const MAX_ID_BYTES: usize = 128;

/// Most follow-on jobs of a job.
pub const MAX_FOLLOW_UPS: usize = 100;

/// Most bytes of the follow-on jobs of a job.
pub const MAX_FOLLOW_UP_BYTES: usize = 256 * 1024;

/// Most different jobs of an attempt whose ids are made of its own job's; beyond, ids are random, and a second run enqueues those
/// once more.
const MAX_CHILDREN: usize = 100_000;

/// The jobs that an attempt has enqueued.
#[derive(Debug, Default)]
pub struct AttemptChildren(Mutex<ChildrenState>);

#[derive(Debug, Default)]
struct ChildrenState {
    /// How many of each content.
    counts: BTreeMap<[u8; 16], u32>,
    follow_ups: Vec<NewJob>,
    bytes: usize,
    /// Whether the attempt is being settled.
    is_closed: bool,
}

impl AttemptChildren {
    fn state(&self) -> MutexGuard<'_, ChildrenState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the next job of this content; `None` beyond the bound.
    pub(super) fn next_id(&self, parent: &str, content: [u8; 16]) -> Option<Arc<str>> {
        let number = {
            let mut state = self.state();
            let is_full = state.counts.len() >= MAX_CHILDREN;
            match state.counts.entry(content) {
                Entry::Vacant(_) if is_full => {
                    bound_reached("task_children");
                    return None;
                }
                entry => {
                    let count = entry.or_default();
                    *count += 1;
                    *count
                }
            }
        };
        Some(child_id(parent, content, number))
    }

    /// The id of the next batch with this name and completion that the job creates. Another job may have its id once that is forgotten, while a
    /// batch is known for longer: so it has the time of the job's enqueue too.
    pub(super) fn next_batch_id(
        &self,
        (parent, enqueued_at_ms): (&str, Option<u64>),
        name: Option<&str>,
        completion: Option<(&str, &RawValue)>,
    ) -> Option<Arc<str>> {
        let mut hash = Sha256::new();
        hash.update(b"batch");
        hash.update(enqueued_at_ms.unwrap_or_default().to_le_bytes());
        if let Some(name) = name {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        if let Some((task, input)) = completion {
            hash.update([1]);
            hash.update(task.as_bytes());
            hash.update([0]);
            hash.update(input.get().as_bytes());
        }
        let mut content = [0; 16];
        content.copy_from_slice(&hash.finalize()[..16]);
        self.next_id(parent, content)
    }

    /// Takes a job that is stored with the attempt's success.
    pub(super) fn follow(&self, job: NewJob) -> Result<Arc<str>, ActionError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(TaskControl::Ended.into_error());
        }
        let bytes = state.bytes + job.text.len();
        if state.follow_ups.len() >= MAX_FOLLOW_UPS || bytes > MAX_FOLLOW_UP_BYTES {
            bound_reached("task_follow_ups");
            let message = format!("a job has {MAX_FOLLOW_UPS} follow-on jobs at most, of {MAX_FOLLOW_UP_BYTES} bytes");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        let id = job.id.clone();
        state.bytes = bytes;
        state.follow_ups.push(job);
        Ok(id)
    }

    /// Ends the additions to an attempt that is being settled; returns the jobs that follow on its success.
    pub fn close(&self) -> Vec<NewJob> {
        let mut state = self.state();
        state.is_closed = true;
        std::mem::take(&mut state.follow_ups)
    }
}

/// The id of a job that the attempt of another one enqueues: that of the other, or its digest if it is long, and a number.
fn child_id(parent: &str, content: [u8; 16], count: u32) -> Arc<str> {
    let mut number = Sha256::new();
    number.update(content);
    number.update(count.to_le_bytes());
    let number = HEXLOWER.encode(&number.finalize()[..8]);
    if parent.len() + 1 + number.len() <= MAX_ID_BYTES {
        return format!("{parent}.{number}").into();
    }
    format!("{}.{number}", HEXLOWER.encode(&Sha256::digest(parent)[..16])).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_the_same_in_each_run_in_any_order_and_different_in_one() {
        let (a, b) = ([1; 16], [2; 16]);
        let ids = |order: &[[u8; 16]]| {
            let children = AttemptChildren::default();
            let mut ids: Vec<_> = order.iter().map(|content| children.next_id("parent", *content).unwrap()).collect();
            ids.sort_unstable();
            ids
        };
        let first = ids(&[a, b, a]);
        assert_eq!(first, ids(&[b, a, a]));
        assert!(first[0] != first[1] && first[1] != first[2] && first.iter().all(|id| id.starts_with("parent.")));
        let long = child_id(&"p".repeat(MAX_ID_BYTES), a, 1);
        assert!(long.len() <= MAX_ID_BYTES && long != child_id(&"q".repeat(MAX_ID_BYTES), a, 1), "{long}");
    }

    #[test]
    fn batches_have_ids_of_their_job_and_its_enqueue() {
        let id = |parent: &str, enqueued_at_ms, completion| {
            AttemptChildren::default().next_batch_id((parent, enqueued_at_ms), None, completion).unwrap()
        };
        let input = RawValue::from_string("{}".to_owned()).unwrap();
        let first = id("p", Some(7), Some(("c", &*input)));
        assert_eq!(first, id("p", Some(7), Some(("c", &*input))), "in another attempt");
        for other in [
            id("q", Some(7), Some(("c", &*input))),
            id("p", Some(8), Some(("c", &*input))),
            id("p", Some(7), Some(("d", &*input))),
            id("p", Some(7), None),
        ] {
            assert_ne!(first, other);
        }
        let children = AttemptChildren::default();
        let next = |name| children.next_batch_id(("p", None), name, None).unwrap();
        let of_names = [next(None), next(None), next(Some("a")), next(Some("b"))];
        assert_eq!(BTreeSet::from(of_names).len(), 4);
    }

    #[test]
    fn beyond_the_bound_ids_are_not_made_of_the_parents() {
        let children = AttemptChildren::default();
        for number in 0..MAX_CHILDREN as u128 {
            children.next_id("p", number.to_le_bytes()).unwrap();
        }
        assert_eq!(children.next_id("p", u128::MAX.to_le_bytes()), None);
        assert!(children.next_id("p", [0; 16]).is_some(), "one of them");
    }

    #[test]
    fn follow_on_jobs_have_a_bound_and_none_is_added_after_the_end() {
        let job = |bytes: usize| NewJob::new("a", "q", vec![b'x'; bytes]);
        let children = AttemptChildren::default();
        for _ in 0..MAX_FOLLOW_UPS {
            children.follow(job(1)).unwrap();
        }
        assert_eq!(children.follow(job(1)).unwrap_err().code(), "payload_too_large");
        assert_eq!(children.close().len(), MAX_FOLLOW_UPS);
        assert_eq!(children.follow(job(1)).unwrap_err().code(), "task_ended");
        let children = AttemptChildren::default();
        children.follow(job(MAX_FOLLOW_UP_BYTES)).unwrap();
        assert_eq!(children.follow(job(1)).unwrap_err().code(), "payload_too_large");
        let children = AttemptChildren::default();
        assert_eq!(children.close(), []);
        assert_eq!(children.follow(job(1)).unwrap_err().code(), "task_ended");
    }
}

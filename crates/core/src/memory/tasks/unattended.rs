//! Jobs that failed in no attempt, for the node that runs what their tasks do then.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::MAX_UNATTENDED;
use crate::job::JobText;
use crate::metrics::bound_reached;

/// The last such jobs of all classes: their classes and their records.
#[derive(Default)]
pub(super) struct UnattendedFailures(VecDeque<(Arc<str>, Bytes)>);

impl UnattendedFailures {
    /// Keeps the record of a job, given by its text.
    pub(super) fn keep(&mut self, text: &[u8], record: &Bytes) {
        let Some(job) = JobText::read(text) else { return };
        if self.0.len() >= MAX_UNATTENDED {
            bound_reached("unattended_failures");
            self.0.pop_front();
        }
        self.0.push_back((job.class.as_ref().into(), record.clone()));
    }

    pub(super) fn take(&mut self, classes: &[&str], most: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        self.0.retain(|(class, record)| {
            let is_taken = taken.len() < most && classes.contains(&&**class);
            if is_taken {
                taken.push(record.clone());
            }
            !is_taken
        });
        taken
    }
}

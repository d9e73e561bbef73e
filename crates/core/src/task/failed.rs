//! Failed jobs by their ids.

use super::handle::Tasks;
use crate::backend::JobState;
use crate::error::ActionError;
use crate::job::FailedJob;

/// Records that are read at a time: each has a job of up to 1 MiB.
const PAGE: usize = 100;

impl Tasks {
    /// Finds a failed job by its id; `None` if it is not among the failed ones. The list has no index: it is read until the
    /// job is found. One whose place changes meanwhile, because others are retried or removed, may be missed.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn find_failed(&self, id: &str) -> Result<Option<FailedJob>, ActionError> {
        if self.status(id).await?.state != JobState::Failed {
            return Ok(None);
        }
        let mut skip = 0;
        loop {
            let page = self.failed(skip, PAGE).await?;
            let is_last = page.len() < PAGE;
            skip += page.len();
            if let Some(found) = page.into_iter().find(|job| job.id.as_deref() == Some(id)) {
                return Ok(Some(found));
            }
            if is_last {
                return Ok(None);
            }
        }
    }
}

//! The permits of requests that run: taken while code runs, given back while a body is awaited.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use phalanx_core::config::Web;
use phalanx_core::{ActionError, ErrorKind, bound_reached};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::shares::SharePermit;

/// The permits under `web.max_requests`.
///
/// New requests take at most `web.new_requests_share` of them. The rest is for requests that come back with their body:
/// without it an upload of minutes would be thrown away because new requests took its permit meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct RunPermits {
    free: Arc<Semaphore>,
    /// The permits that new requests leave free.
    reserved: usize,
    resume_timeout: Duration,
}

/// A permit; dropping it gives it to the longest waiting request, or frees it.
#[derive(Debug)]
pub(crate) struct RunPermit {
    _permit: OwnedSemaphorePermit,
    /// That of the client's address. A request that comes back with its body goes on without one if the address has its
    /// share: the share of bodies that are awaited has bounded it already.
    _share: Option<SharePermit>,
}

impl RunPermit {
    pub(crate) fn with_share(self, share: Option<SharePermit>) -> Self {
        Self { _share: share, ..self }
    }
}

/// The error of a request that gets no permit.
pub(crate) fn limit_reached() -> ActionError {
    ActionError::of(ErrorKind::Unavailable, "the server has as many requests as it may")
}

impl RunPermits {
    pub(crate) fn new(settings: &Web) -> Self {
        let all = settings.max_requests.min(Semaphore::MAX_PERMITS);
        let reserved = (all as f64 * (1.0 - settings.new_requests_share)) as usize;
        let reserved = reserved.min(all.saturating_sub(1)); // one permit is for new requests, whatever the share
        Self { free: Arc::new(Semaphore::new(all)), reserved, resume_timeout: settings.resume_timeout }
    }

    /// Takes a permit for a new request. Requests that arrive at the same instant on several cores may take one of the
    /// reserved permits each: looking and taking are two steps, so that this path has no lock.
    pub(crate) fn try_enter(&self) -> Option<RunPermit> {
        let is_free = self.free.available_permits() > self.reserved;
        let run_permit = is_free.then(|| self.take()).flatten();
        if run_permit.is_none() {
            bound_reached("web.max_requests");
        }
        run_permit
    }

    /// Takes a permit for a request whose body has come, in order of arrival; `None` after `web.resume_timeout`.
    pub(crate) async fn resume(&self) -> Option<RunPermit> {
        if let Some(run_permit) = self.take() {
            return Some(run_permit);
        }
        match timeout(self.resume_timeout, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Some(RunPermit { _permit: permit, _share: None }),
            Ok(Err(_)) | Err(_) => {
                bound_reached("web.resume_timeout");
                None
            }
        }
    }

    /// Takes a permit for an application's own route, whose code runs on as soon as a piece of its body has come; without
    /// a free one it runs past the bound, and is counted.
    pub(crate) fn resume_now(&self) -> Option<RunPermit> {
        let run_permit = self.take();
        if run_permit.is_none() {
            counter!("phalanx_http_requests_past_bound_total").increment(1);
        }
        run_permit
    }

    fn take(&self) -> Option<RunPermit> {
        self.free.clone().try_acquire_owned().ok().map(|permit| RunPermit { _permit: permit, _share: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_permits(max_requests: usize) -> RunPermits {
        RunPermits::new(&Web { max_requests, ..Web::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn new_requests_leave_an_eighth_for_those_that_come_back() {
        let run_permits = run_permits(8);
        let mut taken: Vec<RunPermit> = std::iter::from_fn(|| run_permits.try_enter()).collect();
        assert_eq!(taken.len(), 7);
        taken.push(run_permits.resume().await.expect("the reserved permit"));
        assert!(run_permits.resume().await.is_none(), "all are taken for longer than web.resume_timeout");
        let waiting = tokio::spawn({
            let run_permits = run_permits.clone();
            async move { run_permits.resume().await.is_some() }
        });
        tokio::task::yield_now().await;
        taken.pop();
        assert!(run_permits.try_enter().is_none(), "the free permit is for the request that waits");
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn a_bound_of_one_has_a_permit_for_new_requests() {
        for (max_requests, new) in [(1, 1), (2, 2), (8, 7), (10_000, 8750)] {
            let run_permits = run_permits(max_requests);
            assert_eq!(std::iter::from_fn(|| run_permits.try_enter()).collect::<Vec<_>>().len(), new);
        }
    }

    #[test]
    fn an_own_route_runs_past_the_bound() {
        let run_permits = run_permits(1);
        let run_permit = run_permits.try_enter().unwrap();
        assert!(run_permits.resume_now().is_none());
        drop(run_permit);
        assert!(run_permits.resume_now().is_some());
    }
}

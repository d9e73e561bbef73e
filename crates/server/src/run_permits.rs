//! The permits of requests that run: taken while code runs, given back while a body is awaited.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use phalanx_core::config::Web;
use phalanx_core::{ActionError, ErrorKind, bound_reached};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::quota::SharedPermit;
use crate::reserving_semaphore::ReservingSemaphore;
use crate::shares::{AddressShare, SharedBound};

/// The permits under `web.max_requests`, of which each address has its share.
///
/// New requests take at most `web.new_requests_share` of both. The rest is for requests that come back with their body.
#[derive(Clone, Debug)]
pub(crate) struct RunPermits {
    node: ReservingSemaphore,
    resume_timeout: Duration,
}

/// The permit of a request that runs; dropping it gives it to the longest waiting request, or frees it.
#[derive(Debug)]
#[expect(dead_code, reason = "their drop is what counts")]
pub(crate) enum RunPermit {
    /// One of the node's, and one of those of the client's address.
    Within(OwnedSemaphorePermit, Option<AddressPermit>),
    /// None was free when a piece of the body of an own route had come: the request runs all the same, and goes on
    /// counting as a body that is awaited.
    Beyond(SharedPermit),
}

/// A permit of an address. The share is kept with it: an address whose calls outlive its connections is still the same.
#[derive(Debug)]
#[expect(dead_code, reason = "their drop is what counts")]
pub(crate) struct AddressPermit(OwnedSemaphorePermit, Arc<AddressShare>);

impl RunPermits {
    pub(crate) fn new(settings: &Web) -> Self {
        let node = ReservingSemaphore::new(settings.max_requests, settings.new_requests_share);
        Self { node, resume_timeout: settings.resume_timeout }
    }

    /// Takes a permit for a new request.
    ///
    /// # Errors
    ///
    /// `address_limit` if the address has its share, `unavailable` if the node has no permit.
    pub(crate) fn try_enter(&self, share: Option<&Arc<AddressShare>>) -> Result<RunPermit, ActionError> {
        let address = address_permit(share, ReservingSemaphore::try_enter)?;
        let node = self.node.try_enter().ok_or_else(|| limit_reached("web.max_requests"))?;
        Ok(RunPermit::Within(node, address))
    }

    /// Takes a permit for a request whose body has come, in order of arrival, within `web.resume_timeout`.
    ///
    /// # Errors
    ///
    /// As [`RunPermits::try_enter`].
    pub(crate) async fn resume(&self, share: Option<&Arc<AddressShare>>) -> Result<RunPermit, ActionError> {
        let deadline = Instant::now() + self.resume_timeout;
        let in_time = async |semaphore: &ReservingSemaphore| timeout_at(deadline, semaphore.resume()).await.ok()?.ok();
        let address = match share {
            Some(share) => {
                let permit = in_time(share.requests()).await;
                Some(AddressPermit(permit.ok_or_else(|| share.refuse(SharedBound::Requests))?, share.clone()))
            }
            None => None,
        };
        let node = in_time(&self.node).await.ok_or_else(|| limit_reached("web.resume_timeout"))?;
        Ok(RunPermit::Within(node, address))
    }

    /// Takes a permit for an application's own route, whose code runs on as soon as a piece of its body has come; without
    /// a free one it runs past the bound, and is counted.
    pub(crate) fn resume_now(&self, share: Option<&Arc<AddressShare>>, waiting: SharedPermit) -> RunPermit {
        let address = share.map(|share| Some(AddressPermit(share.requests().try_resume()?, share.clone())));
        let is_free = address.as_ref().is_none_or(Option::is_some);
        match is_free.then(|| self.node.try_resume()).flatten() {
            Some(node) => RunPermit::Within(node, address.flatten()),
            None => {
                counter!("phalanx_http_requests_past_bound_total").increment(1);
                RunPermit::Beyond(waiting)
            }
        }
    }
}

/// Takes a permit of an address, if it has a share.
fn address_permit(
    share: Option<&Arc<AddressShare>>,
    take: fn(&ReservingSemaphore) -> Option<OwnedSemaphorePermit>,
) -> Result<Option<AddressPermit>, ActionError> {
    let Some(share) = share else { return Ok(None) };
    let permit = take(share.requests()).ok_or_else(|| share.refuse(SharedBound::Requests))?;
    Ok(Some(AddressPermit(permit, share.clone())))
}

/// Counts that the node has no permit, and returns the error.
fn limit_reached(bound: &'static str) -> ActionError {
    bound_reached(bound);
    ActionError::of(ErrorKind::Unavailable, "the server has as many requests as it may")
}

#[cfg(test)]
mod tests {
    use phalanx_core::config::Config;

    use super::*;
    use crate::quota::Quota;
    use crate::shares::AddressShares;

    fn config(max_requests: usize) -> Config {
        let mut config = Config::default();
        config.web.max_requests = max_requests;
        config
    }

    fn waiting() -> SharedPermit {
        SharedPermit::start(&Quota::new("test", 1), None, SharedBound::WaitingBodies)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_back_waits_for_a_permit_as_long_as_it_may() {
        let run_permits = RunPermits::new(&config(8).web);
        let mut taken: Vec<RunPermit> = std::iter::from_fn(|| run_permits.try_enter(None).ok()).collect();
        assert_eq!(taken.len(), 7);
        taken.push(run_permits.resume(None).await.expect("the reserved permit"));
        let refused = run_permits.resume(None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "all are taken for longer than web.resume_timeout");
    }

    #[test]
    fn an_own_route_runs_past_the_bound() {
        let run_permits = RunPermits::new(&config(1).web);
        let run_permit = run_permits.try_enter(None).unwrap();
        assert!(matches!(run_permits.resume_now(None, waiting()), RunPermit::Beyond(_)));
        drop(run_permit);
        assert!(matches!(run_permits.resume_now(None, waiting()), RunPermit::Within(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_of_permits_whether_its_requests_are_new_or_come_back() {
        let config = config(8);
        let run_permits = RunPermits::new(&config.web);
        let shares = AddressShares::new(&config, None);
        let [one, other] = ["203.0.113.1", "203.0.113.2"].map(|address| shares.of(address.parse().unwrap()));
        let (one, other) = (one.as_ref(), other.as_ref());
        let first = run_permits.try_enter(one).unwrap();
        let second = run_permits.resume(one).await.unwrap();
        assert_eq!(run_permits.try_enter(one).unwrap_err().code(), "address_limit");
        assert_eq!(run_permits.resume(one).await.unwrap_err().code(), "address_limit");
        assert!(matches!(run_permits.resume_now(one, waiting()), RunPermit::Beyond(_)), "none of the node's");
        assert!(run_permits.try_enter(other).is_ok());
        drop((first, second));
        assert!(run_permits.resume(one).await.is_ok());
    }
}

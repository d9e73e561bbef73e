//! A semaphore that keeps a part of its permits from newcomers.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A semaphore of which requests that come back with their body may take all, and new requests only a part: an upload
/// of minutes would else be thrown away because new requests took its permit meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct ReservingSemaphore {
    free: Arc<Semaphore>,
    /// The permits that new requests leave free.
    reserved: usize,
}

impl ReservingSemaphore {
    /// Makes a semaphore of which new requests may take the part `new_share`, and one permit at least.
    pub(crate) fn new(permits: usize, new_share: f64) -> Self {
        let permits = permits.min(Semaphore::MAX_PERMITS);
        let reserved = (permits as f64 * (1.0 - new_share)) as usize;
        Self { free: Arc::new(Semaphore::new(permits)), reserved: reserved.min(permits.saturating_sub(1)) }
    }

    /// Takes a permit for a new request. Requests that arrive at the same instant on several cores may take one of the
    /// reserved permits each: looking and taking are two steps, so that this path has no lock.
    pub(crate) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        (self.free.available_permits() > self.reserved).then(|| self.try_resume()).flatten()
    }

    /// Takes a permit for a request that comes back.
    pub(crate) fn try_resume(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Waits for a permit for a request that comes back, in order of arrival. Cancel safe, but for the place in the
    /// order.
    ///
    /// # Errors
    ///
    /// None: the semaphore is never closed.
    pub(crate) async fn resume(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.free.clone().acquire_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_requests_leave_an_eighth_and_have_one_at_least() {
        for (permits, new) in [(1, 1), (2, 2), (8, 7), (10_000, 8750)] {
            let semaphore = ReservingSemaphore::new(permits, 0.875);
            let taken: Vec<_> = std::iter::from_fn(|| semaphore.try_enter()).collect();
            assert_eq!(taken.len(), new);
            let reserved: Vec<_> = std::iter::from_fn(|| semaphore.try_resume()).collect();
            assert_eq!(reserved.len(), permits - new);
        }
    }

    #[tokio::test]
    async fn a_free_permit_is_for_the_request_that_waits() {
        let semaphore = ReservingSemaphore::new(1, 0.875);
        let permit = semaphore.try_enter().unwrap();
        let waiting = tokio::spawn({
            let semaphore = semaphore.clone();
            async move { semaphore.resume().await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(permit);
        assert!(semaphore.try_enter().is_none());
        assert!(waiting.await.unwrap());
    }
}

//! Shares: the part of each bound that one address may take, so that it cannot use up a node alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phalanx_core::action::BodyRules;
use phalanx_core::config::{Config, LimitSettings, Web};
use phalanx_core::{ActionError, ErrorKind, bound_reached};
use tokio::time::Instant;
use tracing::warn;

use crate::reserving_semaphore::ReservingSemaphore;

/// The bounds of which an address has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedBound {
    Connections,
    Requests,
    Sockets,
    WaitingBodies,
    BodyBytes,
    UploadBytes,
}

impl SharedBound {
    const COUNT: usize = 6;

    const fn name(self) -> &'static str {
        match self {
            Self::Connections => "web.max_connections of an address",
            Self::Requests => "web.max_requests of an address",
            Self::Sockets => "websocket.max_connections of an address",
            Self::WaitingBodies => "web.max_waiting_bodies of an address",
            Self::BodyBytes => "web.max_bodies_total of an address",
            Self::UploadBytes => "web.max_uploads_total of an address",
        }
    }
}

/// The shares of all addresses that are connected. An address is looked up when a connection is accepted, and for each
/// request only behind a trusted proxy.
#[derive(Debug)]
pub(crate) struct AddressShares {
    limits: [u64; SharedBound::COUNT],
    new_requests_share: f64,
    settings: LimitSettings,
    /// An entry goes with the last connection and request of its address, so connections and requests bound the table.
    by_address: Mutex<HashMap<IpAddr, Weak<AddressShare>>>,
    /// The second, after `started`, from which the next warning about a bound is logged.
    next_warning: [AtomicU64; SharedBound::COUNT],
    warned_of_proxy: AtomicBool,
    /// Whether a proxy on this machine is one to warn of, although the machine has no share: limits count its clients as one.
    has_limits: AtomicBool,
    started: Instant,
}

const WARNING_INTERVAL: Duration = Duration::from_secs(60);

impl AddressShares {
    /// Makes the shares; an address may send at least one body as large as the node or one of its actions takes it.
    pub(crate) fn new(config: &Config, actions: impl IntoIterator<Item = BodyRules>) -> Arc<Self> {
        let web = &config.web;
        let (mut body, mut upload) = (web.max_body.as_u64(), web.max_upload.as_u64());
        for rules in actions {
            body = body.max(rules.max_body.unwrap_or(0));
            upload = upload.max(rules.max_upload.unwrap_or(0));
        }
        let part = |bound: u64| share_of(bound, web);
        let limits = [
            part(web.max_connections as u64),
            part(web.max_requests as u64),
            part(config.websocket.max_connections as u64),
            part(web.max_waiting_bodies as u64),
            part(web.max_bodies_total.as_u64()).max(body),
            part(web.max_uploads_total.as_u64()).max(upload),
        ];
        let (by_address, next_warning) = (Mutex::default(), Default::default());
        let new_requests_share = web.new_requests_share;
        let (warned_of_proxy, has_limits, started) = (AtomicBool::new(false), AtomicBool::new(false), Instant::now());
        let settings = config.limits.clone();
        Arc::new(Self {
            limits,
            new_requests_share,
            settings,
            by_address,
            next_warning,
            warned_of_proxy,
            has_limits,
            started,
        })
    }

    /// Returns the share of an address; `None` for the machine itself, which has all of each bound.
    pub(crate) fn of(self: &Arc<Self>, address: IpAddr) -> Option<Arc<AddressShare>> {
        let address = self.settings.subject_of(address);
        if address.is_loopback() {
            return None;
        }
        let mut table = self.table();
        if let Some(share) = table.get(&address).and_then(Weak::upgrade) {
            return Some(share);
        }
        let requests = usize::try_from(self.limits[SharedBound::Requests as usize]).unwrap_or(usize::MAX);
        let requests = ReservingSemaphore::new(requests, self.new_requests_share);
        let share = Arc::new(AddressShare { address, requests, used: Default::default(), shares: self.clone() });
        table.insert(address, Arc::downgrade(&share));
        Some(share)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<IpAddr, Weak<AddressShare>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has proxies on this machine looked for, until one is found: the application has limits.
    pub(crate) fn look_for_local_proxies(&self) {
        self.has_limits.store(true, Relaxed);
    }

    /// Whether a peer without a share may be a proxy to warn of.
    pub(crate) fn looks_for_local_proxies(&self) -> bool {
        self.has_limits.load(Relaxed) && !self.warned_of_proxy.load(Relaxed)
    }

    /// Logs, once, that a proxy is not in the settings: its clients have no share each, and it has none for all of them.
    pub(crate) fn warn_of_unnamed_proxy(&self, proxy: IpAddr) {
        if !self.warned_of_proxy.swap(true, Relaxed) {
            warn!(%proxy, "a private peer forwards requests and is not in web.trusted_proxies: no share limits its clients, and limits by address count them as one");
        }
    }

    /// Counts a refusal, and logs one a minute.
    fn refuse(&self, bound: SharedBound, address: IpAddr) {
        bound_reached(bound.name());
        let (now, next) = (self.started.elapsed().as_secs(), &self.next_warning[bound as usize]);
        let due = |at: u64| (now >= at).then(|| now + WARNING_INTERVAL.as_secs());
        if next.fetch_update(Relaxed, Relaxed, due).is_ok() {
            warn!(%address, bound = bound.name(), "an address has its share (web.address_share) of a bound");
        }
    }
}

/// The part of a bound that one address may take.
fn share_of(bound: u64, web: &Web) -> u64 {
    ((bound as f64 * web.address_share).ceil() as u64).clamp(1, bound.max(1))
}

/// The amounts that one address has of each bound.
#[derive(Debug)]
pub(crate) struct AddressShare {
    address: IpAddr,
    requests: ReservingSemaphore,
    /// The amounts of the other bounds.
    used: [AtomicU64; SharedBound::COUNT],
    shares: Arc<AddressShares>,
}

impl AddressShare {
    /// Takes `amount` of a bound.
    pub(crate) fn try_acquire(self: &Arc<Self>, bound: SharedBound, amount: u64) -> Option<SharePermit> {
        let mut permit = SharePermit { share: self.clone(), bound, amount: 0 };
        permit.try_grow(amount).then_some(permit)
    }

    /// The permits for requests that run.
    pub(crate) fn requests(&self) -> &ReservingSemaphore {
        &self.requests
    }

    /// Counts that the address has its share of a bound, and returns the error.
    pub(crate) fn refuse(&self, bound: SharedBound) -> ActionError {
        self.shares.refuse(bound, self.address);
        limit_reached()
    }
}

impl Drop for AddressShare {
    fn drop(&mut self) {
        let mut table = self.shares.table();
        // A connection that was accepted meanwhile may have made a new entry.
        if table.get(&self.address).is_some_and(|share| share.strong_count() == 0) {
            table.remove(&self.address);
        }
    }
}

/// An amount of a share; dropping it gives the amount back.
#[derive(Debug)]
pub(crate) struct SharePermit {
    share: Arc<AddressShare>,
    bound: SharedBound,
    amount: u64,
}

impl SharePermit {
    /// Takes `by` more and returns whether the address may have that much.
    pub(crate) fn try_grow(&mut self, by: u64) -> bool {
        let (shares, index) = (&self.share.shares, self.bound as usize);
        let grown = |used: u64| used.checked_add(by).filter(|sum| *sum <= shares.limits[index]);
        let is_free = self.share.used[index].fetch_update(Relaxed, Relaxed, grown).is_ok();
        if is_free {
            self.amount += by;
        } else {
            shares.refuse(self.bound, self.share.address);
        }
        is_free
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        self.share.used[self.bound as usize].fetch_sub(self.amount, Relaxed);
    }
}

/// Takes one of a bound for an address; `Ok(None)` where there is no share.
pub(crate) fn take(share: Option<&Arc<AddressShare>>, bound: SharedBound) -> Result<Option<SharePermit>, ActionError> {
    let Some(share) = share else { return Ok(None) };
    share.try_acquire(bound, 1).map(Some).ok_or_else(limit_reached)
}

/// The error of an address that has its share. It is not 503: balancers take a node out of service for that.
pub(crate) fn limit_reached() -> ActionError {
    let error = ActionError::new(ErrorKind::RateLimited, "address_limit", "this address has its share of the server");
    error.with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(max_connections: usize) -> Arc<AddressShares> {
        let mut config = Config::default();
        config.web.max_connections = max_connections;
        AddressShares::new(&config, None)
    }

    #[test]
    fn an_address_has_a_quarter_of_each_bound_and_one_at_least() {
        for (bound, part) in [(1, 1), (3, 1), (4, 1), (5, 2), (10_000, 2500)] {
            let shares = shares(bound);
            let one = shares.of("203.0.113.1".parse().unwrap()).unwrap();
            let taken: Vec<_> = std::iter::from_fn(|| one.try_acquire(SharedBound::Connections, 1)).collect();
            assert_eq!(taken.len(), part);
            let other = shares.of("203.0.113.2".parse().unwrap()).unwrap();
            assert!(other.try_acquire(SharedBound::Connections, 1).is_some());
        }
        let config = Config::default();
        let one = AddressShares::new(&config, None).of("203.0.113.1".parse().unwrap()).unwrap();
        let (body, upload) = (config.web.max_body.as_u64(), config.web.max_upload.as_u64());
        assert!(one.try_acquire(SharedBound::BodyBytes, body).is_some());
        assert!(one.try_acquire(SharedBound::UploadBytes, upload).is_some());
    }

    #[test]
    fn addresses_of_one_subject_share_and_the_machine_has_no_share() {
        let shares = shares(4);
        let same = |one: &str, other: &str| {
            let of = |address: &str| shares.of(address.parse().unwrap()).unwrap();
            Arc::ptr_eq(&of(one), &of(other))
        };
        let held: Vec<_> = ["203.0.113.1", "2001:db8::1"].map(|address| shares.of(address.parse().unwrap())).into();
        assert!(same("203.0.113.1", "::ffff:203.0.113.1"));
        assert!(same("203.0.113.1", "64:ff9b::203.0.113.1"));
        assert!(same("2001:db8::1", "2001:db8::2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].iter().all(|own| shares.of(own.parse().unwrap()).is_none()));
        drop(held);
        assert!(shares.table().is_empty(), "an entry goes with its address");
    }
}

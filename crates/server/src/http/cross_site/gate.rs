//! Refuses or reports the requests that a [`CrossSiteRule`] does not permit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::ORIGIN;
use metrics::{Counter, counter, describe_counter};
use phalanx_core::config::CrossSite;
use phalanx_core::{ActionError, ErrorKind, bound_reached};
use tokio::time::Instant;
use tracing::warn;

use super::{CrossSiteRule, RequestSite};

/// The rule for one kind of requests, and the treatment of those that it does not permit.
#[derive(Debug)]
pub(crate) struct CrossSiteGate {
    rule: CrossSiteRule,
    mode: CrossSite,
    /// The ways to permit such requests, as the error names them.
    remedy: &'static str,
    reports: Arc<CrossSiteReports>,
}

impl CrossSiteGate {
    /// Makes the gate of actions and of an application's own routes.
    pub(crate) fn of_requests(rule: CrossSiteRule, mode: CrossSite, reports: Arc<CrossSiteReports>) -> Self {
        let remedy = "list the origin in `web.cors_origins`, or mark the action or the route as `cross_site`";
        Self { rule, mode, remedy, reports }
    }

    /// Makes the gate of the WebSocket endpoint. It refuses in every mode: a socket of another site can also read.
    pub(crate) fn of_sockets(rule: CrossSiteRule, reports: Arc<CrossSiteReports>) -> Self {
        let remedy = "list the origin in `websocket.allowed_origins`, or open the socket from a page of this site";
        Self { rule, mode: CrossSite::Refuse, remedy, reports }
    }

    /// Checks a request.
    ///
    /// # Errors
    ///
    /// `cross_site`: a page of another site sent the request, and the mode is to refuse it.
    pub(crate) fn check(&self, request: &RequestSite<'_>) -> Result<(), ActionError> {
        self.other_site(request).map_or(Ok(()), |origin| self.refuse(&origin))
    }

    /// Whether the session of a request's cookie counts, as [`CrossSiteRule::counts_session`] says.
    pub(crate) fn counts_session(&self, request: &RequestSite<'_>) -> bool {
        self.rule.counts_session(request)
    }

    /// Returns the origin of a request that the rule does not permit, for [`Self::refuse`].
    pub(crate) fn other_site(&self, request: &RequestSite<'_>) -> Option<String> {
        (!self.rule.permits(request)).then(|| origin_of(request))
    }

    /// Refuses or reports a request of a page of this other site.
    ///
    /// # Errors
    ///
    /// `cross_site`: the mode is to refuse it.
    pub(crate) fn refuse(&self, origin: &str) -> Result<(), ActionError> {
        self.reports.record(origin, self.mode);
        match self.mode {
            CrossSite::Report => Ok(()),
            CrossSite::Refuse => {
                let message = format!("this request comes from {origin}, which is another site: {}", self.remedy);
                Err(ActionError::new(ErrorKind::Forbidden, "cross_site", message))
            }
        }
    }
}

/// The origin of a request for errors and logs: printable, and not longer than a host can be.
fn origin_of(request: &RequestSite<'_>) -> String {
    const LONGEST: usize = 300;
    match request.headers.get(ORIGIN) {
        Some(origin) => origin.as_bytes()[..origin.len().min(LONGEST)].escape_ascii().to_string(),
        None => "a page without an origin".to_owned(),
    }
}

/// Counts and logs requests of pages of other sites.
#[derive(Debug)]
pub(crate) struct CrossSiteReports {
    refused: Counter,
    reported: Counter,
    /// The origins in the log, with the time of their last line.
    logged: Mutex<HashMap<String, Instant>>,
}

impl CrossSiteReports {
    /// The most origins in the log within [`Self::PAUSE`]; beyond, requests are only counted.
    const MAX_ORIGINS: usize = 64;
    /// The time between two lines of one origin.
    const PAUSE: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        const NAME: &str = "phalanx_cross_site_requests_total";
        describe_counter!(NAME, "Requests and upgrades that pages of other sites caused, by what became of them");
        let of_result = |result: &'static str| counter!("phalanx_cross_site_requests_total", "result" => result);
        Self { refused: of_result("refused"), reported: of_result("served"), logged: Mutex::default() }
    }

    fn record(&self, origin: &str, mode: CrossSite) {
        let (counter, result) = match mode {
            CrossSite::Refuse => (&self.refused, "refused"),
            CrossSite::Report => (&self.reported, "served"),
        };
        counter.increment(1);
        if self.try_log(origin, Instant::now()) {
            warn!(origin, result, "a page of another site caused a request; not logged again within a minute");
        }
    }

    /// Returns whether a line about this origin is due.
    fn try_log(&self, origin: &str, now: Instant) -> bool {
        let is_recent = |logged: &Instant| now.saturating_duration_since(*logged) < Self::PAUSE;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(origin).is_some_and(is_recent) {
            return false;
        }
        if logged.len() >= Self::MAX_ORIGINS {
            logged.retain(|_, logged| is_recent(logged));
        }
        let is_full = logged.len() >= Self::MAX_ORIGINS;
        if is_full {
            bound_reached("cross_site_origins");
        } else {
            logged.insert(origin.to_owned(), now);
        }
        !is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_logged_once_a_minute_and_64_origins_at_most() {
        let (reports, start) = (CrossSiteReports::new(), Instant::now());
        let at = |origin: &str, seconds| reports.try_log(origin, start + Duration::from_secs(seconds));
        assert!(at("https://a", 0) && !at("https://a", 59) && at("https://a", 60));
        for number in 0..63 {
            assert!(at(&format!("https://{number}"), 61));
        }
        assert!(!at("https://one-too-many", 62) && reports.logged.lock().unwrap().len() == 64);
        assert!(at("https://one-too-many", 122) && reports.logged.lock().unwrap().len() == 1);
    }
}

//! Reads the body of a call, once its guards have passed.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use http::Method;
use phalanx_core::error::unknown_action;
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, BodyRead, Params, RequestId};
use tracing::debug;

use super::accepted::{AcceptedBody, check_other_version};
use super::request::RequestBody;
use super::timeout::BodyTimeout;
use super::{BodyError, not_before_the_stop, start_waiting};
use crate::http::params::requested_version;
use crate::http::service::ServiceState;
use crate::http::{body, debug_info};
use crate::quota::SharedPermit;
use crate::shares::{AddressShare, SharedBound};

/// Everything by which the body of a call is read once its guards have passed.
pub(in crate::http) struct BodyReader {
    pub(in crate::http) service: Arc<ServiceState>,
    pub(in crate::http) action: Arc<RegisteredAction>,
    pub(in crate::http) method: Method,
    pub(in crate::http) request: Arc<RequestBody>,
    /// The other site whose page sent the request, which only `cross_site` versions may answer.
    pub(in crate::http) other_site: Option<String>,
    pub(in crate::http) id: RequestId,
    /// The share of the client's address.
    pub(in crate::http) share: Option<Arc<AddressShare>>,
}

impl BodyReader {
    /// Reads the body, and merges it with the params of query and path.
    ///
    /// A body that is there is read in place. While one is awaited, its request has no permit among `web.max_requests`.
    /// This future is allocated.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    pub(in crate::http) fn into_params(
        self,
        (accepted, mut params): (AcceptedBody, Params),
    ) -> impl Future<Output = Result<BodyRead, ActionError>> + Send {
        async move { self.read(&accepted, &mut params).await }
    }

    async fn read(&self, accepted: &AcceptedBody, params: &mut Params) -> Result<BodyRead, ActionError> {
        let mut reading = pin!(self.merge(accepted, params));
        match poll!(reading.as_mut()) {
            Poll::Ready(read) => read,
            // In a box of its own: most bodies are there at once, and need no room for it.
            Poll::Pending => Box::pin(self.wait(reading)).await,
        }
    }

    /// Awaits a body that is pending.
    async fn wait(
        &self,
        reading: Pin<&mut impl Future<Output = Result<BodyRead, ActionError>>>,
    ) -> Result<BodyRead, ActionError> {
        let (service, request, address) = (&self.service, &self.request, self.share.as_ref());
        let waiting = start_waiting(&service.waiting_bodies, address)?;
        request.set_run_permit(None);
        let read = tokio::select! {
            read = reading => read,
            () = service.engine.shutdown().bodies_due() => Err(not_before_the_stop()),
        };
        let read = read?;
        request.set_run_permit(Some(service.run_permits.resume(address).await?));
        drop(waiting); // it counts among those that are awaited until it has a permit again
        Ok(read)
    }

    async fn merge(&self, accepted: &AcceptedBody, params: &mut Params) -> Result<BodyRead, ActionError> {
        let Self { service, action, method, request, other_site, id, share } = self;
        let engine = &service.engine;
        let limits = service.body_limits(action.def, share.as_ref());
        let mut memory = SharedPermit::start(limits.memory, limits.share, SharedBound::BodyBytes);
        let lent = request.lend().ok_or_else(|| ActionError::internal("the body is read twice"))?;
        let raw = match body::read(lent, accepted, &limits, (params, &mut memory)).await {
            Ok(raw) => raw,
            Err(BodyError::Refused(refused)) => return Err(refused),
            Err(BodyError::Timeout) => {
                request.set_timed_out();
                return Err(BodyTimeout.into());
            }
        };
        request.keep_memory(memory);
        let answering = requested_version(engine, action, params, method)?;
        let is_other = answering.def.version != action.def.version;
        if is_other {
            if let Some(origin) = other_site.as_ref().filter(|_| !answering.def.cross_site) {
                service.cross_site.refuse(origin)?;
            }
            if answering.def.body.is_raw != action.def.body.is_raw {
                return Err(unknown_action());
            }
            check_other_version(answering.def, request.received(), accepted.has_files, limits)?;
        }
        if debug_info::is_enabled(engine) {
            request.show(answering.clone(), answering.shown(params, engine.config()));
        }
        let shown = || serde_json::Value::Object(answering.shown(params, engine.config()));
        debug!(action = action.def.name, request = %id, params = %shown(), "a body has come");
        let mut read = BodyRead::new(std::mem::take(params));
        read.raw = raw;
        read.other_version = is_other.then_some(answering as _);
        Ok(read)
    }
}

//! The body of a request to an application's own route.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use phalanx_core::ActionError;

use super::request::{LentBody, RequestBody};
use super::start_waiting;
use super::timeout::{BodyTimeout, TimedBody};
use crate::http::service::ServiceState;
use crate::quota::{Quota, SharedPermit};
use crate::run_permits::RunPermits;
use crate::shares::AddressShare;

/// A body that an application reads by itself. While a piece of it is awaited its request has no permit among
/// `web.max_requests`; with the piece it takes one again, past the bound if need be.
///
/// Extractors respond 400 to every body that fails, so the reason is noted where the service finds it.
#[derive(Debug)]
pub(in crate::http) struct OwnRouteBody {
    body: TimedBody<LentBody>,
    request: Arc<RequestBody>,
    run_permits: RunPermits,
    waiting_bodies: Quota,
    share: Option<Arc<AddressShare>>,
    /// The permit of a body that is awaited.
    waiting: Option<SharedPermit>,
}

/// The error of a body for which the server has no room; the request has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the server awaits as many bodies as it may")]
struct RefusedBody;

impl OwnRouteBody {
    /// Returns the body of a request; `None` if it is being read.
    pub(in crate::http) fn of(
        request: &Arc<RequestBody>,
        service: &ServiceState,
        share: Option<Arc<AddressShare>>,
    ) -> Option<Self> {
        Some(Self {
            body: TimedBody::new(request.lend()?, &service.engine.config().web),
            request: request.clone(),
            run_permits: service.run_permits.clone(),
            waiting_bodies: service.waiting_bodies.clone(),
            share,
            waiting: None,
        })
    }

    /// Gives the permit of the request back, if the body may be awaited.
    fn start_waiting(&mut self) -> Result<(), ActionError> {
        if self.waiting.is_none() {
            self.waiting = Some(start_waiting(&self.waiting_bodies, self.share.as_ref())?);
            self.request.set_run_permit(None);
        }
        Ok(())
    }

    fn stop_waiting(&mut self) {
        if self.waiting.take().is_some() {
            self.request.set_run_permit(self.run_permits.resume_now());
        }
    }
}

impl Body for OwnRouteBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let Err(refused) = this.start_waiting() else { return Poll::Pending };
            this.request.refuse(refused);
            return Poll::Ready(Some(Err(RefusedBody.into())));
        };
        this.stop_waiting();
        if frame.as_ref().is_some_and(|frame| frame.as_ref().is_err_and(|error| error.is::<BodyTimeout>())) {
            this.request.set_timed_out();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for OwnRouteBody {
    /// A handler that drops the body while it is awaited runs on.
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

//! The body of a request to an application's own route.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use phalanx_core::{ActionError, BoxFuture, Shutdown};

use super::request::{LentBody, RequestBody};
use super::timeout::{BodyTimeout, TimedBody};
use super::{not_before_the_stop, start_waiting};
use crate::http::service::ServiceState;
use crate::quota::{Quota, SharedPermit};
use crate::run_permits::{RunPermit, RunPermits};
use crate::shares::AddressShare;

/// A body that an application reads by itself. While a piece of it is awaited its request has no permit among
/// `web.max_requests`; with the piece it takes one again, past the bound if need be.
///
/// Extractors respond 400 to every body that fails, so the reason is noted where the service finds it.
pub(in crate::http) struct OwnRouteBody {
    body: TimedBody<LentBody>,
    request: Arc<RequestBody>,
    run_permits: RunPermits,
    waiting_bodies: Quota,
    shutdown: Shutdown,
    share: Option<Arc<AddressShare>>,
    waiting: Option<Waiting>,
    was_refused: bool,
}

/// A body that is awaited.
struct Waiting {
    permit: SharedPermit,
    /// The time at which a stopping node waits no longer.
    due: BoxFuture<'static, ()>,
}

/// The error of a body that is not read to its end; the request has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the body was refused")]
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
            shutdown: service.engine.shutdown().clone(),
            share,
            waiting: None,
            was_refused: false,
        })
    }

    /// Gives the permit of the request back, if the body may be awaited; ready with the reason if it may not.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<ActionError> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            none => match waiting_permit(&self.request, &self.waiting_bodies, self.share.as_ref()) {
                Ok(permit) => {
                    let shutdown = self.shutdown.clone();
                    none.insert(Waiting { permit, due: Box::pin(async move { shutdown.bodies_due().await }) })
                }
                Err(refused) => return Poll::Ready(refused),
            },
        };
        waiting.due.as_mut().poll(cx).map(|()| not_before_the_stop())
    }

    fn stop_waiting(&mut self) {
        if let Some(Waiting { permit, .. }) = self.waiting.take() {
            self.request.set_run_permit(Some(self.run_permits.resume_now(self.share.as_ref(), permit)));
        }
    }
}

/// Exchanges the permit of a request that runs for that of a body that is awaited.
fn waiting_permit(
    request: &RequestBody,
    waiting_bodies: &Quota,
    share: Option<&Arc<AddressShare>>,
) -> Result<SharedPermit, ActionError> {
    match request.take_run_permit() {
        Some(RunPermit::Beyond(permit)) => Ok(permit),
        run_permit => {
            let permit = start_waiting(waiting_bodies, share);
            if permit.is_err() {
                request.set_run_permit(run_permit);
            }
            permit
        }
    }
}

impl Body for OwnRouteBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.was_refused {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_refused(cx).map(|refused| {
                this.was_refused = true;
                this.request.refuse(refused);
                Some(Err(RefusedBody.into()))
            });
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

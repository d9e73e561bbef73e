//! The body of a request to an application's own route.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use phalanx_core::config::Web;

use super::request::{LentBody, RequestBody};
use super::timeout::{BodyTimeout, TimedBody};

/// A body that an application reads by itself. Its extractors respond 400 to every body that fails, so the reason is
/// noted where the service finds it.
#[derive(Debug)]
pub(in crate::http) struct OwnRouteBody {
    body: TimedBody<LentBody>,
    request: Arc<RequestBody>,
}

impl OwnRouteBody {
    /// Returns the body of a request; `None` if it is being read.
    pub(in crate::http) fn of(request: &Arc<RequestBody>, settings: &Web) -> Option<Self> {
        Some(Self { body: TimedBody::new(request.lend()?, settings), request: request.clone() })
    }
}

impl Body for OwnRouteBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.as_ref().is_some_and(|frame| frame.as_ref().is_err_and(|error| error.is::<BodyTimeout>())) {
            self.request.set_timed_out();
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

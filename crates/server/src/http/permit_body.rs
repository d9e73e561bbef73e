//! A response body that keeps the permit of its request.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::exchange::RequestPermit;
use super::service::OpenRequest;

/// A body with the permit of its request, which is released when the body was sent or dropped.
#[derive(Debug)]
pub(crate) struct PermitBody {
    body: Body,
    was_polled: bool,
    _permit: Option<RequestPermit>,
    open_request: Option<OpenRequest>,
}

impl PermitBody {
    pub(super) fn new(body: Body, permit: Option<RequestPermit>) -> Self {
        Self { body, was_polled: false, _permit: permit, open_request: None }
    }

    /// Keeps the request open until the body is dropped.
    pub(super) fn keep_open(&mut self, request: OpenRequest) {
        self.open_request = Some(request);
    }
}

impl http_body::Body for PermitBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.was_polled = true;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Returns `false` once the body was polled, so that hyper polls for one frame more. hyper drops a body that
    /// reports its end while the bytes of its last frame are still unsent, and polls for another frame only when few of
    /// them are left: the permit is kept until then.
    fn is_end_stream(&self) -> bool {
        !self.was_polled && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A response's body that keeps its request's place.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::quota::Share;

/// A body, and a place that is free again once it has gone out or was given up.
#[derive(Debug)]
pub(crate) struct Held {
    body: Body,
    begun: bool,
    _place: Option<Share>,
}

impl Held {
    pub(super) fn new(body: Body, place: Option<Share>) -> Self {
        Self { body, begun: false, _place: place }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Once begun it is asked for one frame more: hyper would drop a body that says it is over with the bytes of its last
    /// frame still unsent, and asks for another only when few of them are left.
    fn is_end_stream(&self) -> bool {
        !self.begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

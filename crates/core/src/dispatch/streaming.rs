//! The end of a call whose answer is a stream: its outcome is known once the stream has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::Stream;

use super::CallMeter;
use crate::answer::BodyStream;
use crate::error::{ActionError, ErrorKind, panicked};
use crate::metrics::CallEnd;

/// A stream with the meter of its call. The first error, or a panic, ends it and is the outcome of the call; a stream
/// that ends otherwise, or is dropped because its client has left, was answered.
pub(super) struct MeteredStream {
    stream: Option<BodyStream>,
    meter: Option<CallMeter>,
    /// The time until the action had returned the stream.
    took: Duration,
}

impl MeteredStream {
    pub(super) fn new(stream: BodyStream, meter: CallMeter, took: Duration) -> Self {
        Self { stream: Some(stream), meter: Some(meter), took }
    }

    fn finish(&mut self, failed: Option<&ActionError>) {
        let Some(meter) = self.meter.take() else { return };
        let Some(error) = failed else { return meter.end(CallEnd::Answered, self.took) };
        meter.log_failed_stream(error);
        meter.end(CallEnd::Refused(ErrorKind::Internal), self.took);
    }
}

impl Stream for MeteredStream {
    type Item = Result<Bytes, ActionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_next(cx)));
        let next = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(next)) => next,
            Err(panic) => Some(Err(panicked(&*panic))),
        };
        match &next {
            Some(Ok(_)) => return Poll::Ready(next),
            Some(Err(error)) => self.finish(Some(error)),
            None => self.finish(None),
        }
        self.drop_stream();
        Poll::Ready(next)
    }
}

impl MeteredStream {
    /// Drops the author's stream, whose drop may panic too.
    fn drop_stream(&mut self) {
        let stream = self.stream.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(move || drop(stream))) {
            self.finish(Some(&panicked(&*panic)));
        }
    }
}

impl Drop for MeteredStream {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.note_cut();
        }
        self.drop_stream();
        self.finish(None);
    }
}

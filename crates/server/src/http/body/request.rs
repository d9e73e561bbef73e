//! The body of one request, which the service, the call and its reader share.

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use phalanx_core::ActionError;
use phalanx_core::registry::RegisteredAction;
use serde_json::{Map, Value};

use crate::listener::Activity;
use crate::quota::SharedPermit;
use crate::run_permits::RunPermit;

/// The version that answers, and its params, secrets filtered.
pub(in crate::http) type ShownParams = (Arc<RegisteredAction>, Map<String, Value>);

/// The body of a request that has one. Requests without a body have no such state, and pay nothing for it.
#[derive(Debug)]
pub(in crate::http) struct RequestBody<B = Incoming> {
    /// The body, unless it is lent to its reader.
    body: Mutex<Option<B>>,
    has_ended: AtomicBool,
    /// Whether the client waits for a 100 before it sends the body.
    expects_continue: bool,
    received: AtomicU64,
    timed_out: AtomicBool,
    /// The error of a body for which the server had no room, for a handler's response that does not name it.
    refusal: Mutex<Option<ActionError>>,
    /// The permit of the request while its code runs.
    run_permit: Mutex<Option<RunPermit>>,
    /// The memory that the body takes, until the response is sent.
    memory: Mutex<Option<SharedPermit>>,
    /// The connection's: until the body has ended, the client may still be sending.
    activity: Arc<Activity>,
    /// The params that were read, secrets filtered, for `receivedParams`.
    shown: Mutex<Option<ShownParams>>,
}

impl<B> RequestBody<B> {
    /// Makes the state of a body; [`RequestBody::set_run_permit`] gives it the request's permit.
    pub(in crate::http) fn new(body: B, expects_continue: bool, activity: Arc<Activity>) -> Arc<Self> {
        activity.begin_body();
        Arc::new(Self {
            body: Mutex::new(Some(body)),
            has_ended: AtomicBool::new(false),
            expects_continue,
            received: AtomicU64::new(0),
            timed_out: AtomicBool::new(false),
            refusal: Mutex::default(),
            run_permit: Mutex::default(),
            memory: Mutex::default(),
            activity,
            shown: Mutex::default(),
        })
    }

    /// Lends the body to a reader, which gives it back when it is dropped; `None` while it is lent.
    pub(in crate::http) fn lend(self: &Arc<Self>) -> Option<LentBody<B>> {
        let body = self.body().take()?;
        Some(LentBody { body: Some(body), request: self.clone() })
    }

    /// Whether all of it was read.
    pub(in crate::http) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    pub(in crate::http) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Drops the rest of the body, unless it is lent.
    pub(in crate::http) fn discard(&self) {
        *self.body() = None;
    }

    /// The bytes that were read so far.
    pub(in crate::http) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Notes that the client was too slow.
    pub(in crate::http) fn set_timed_out(&self) {
        self.timed_out.store(true, Relaxed);
    }

    pub(in crate::http) fn timed_out(&self) -> bool {
        self.timed_out.load(Relaxed)
    }

    /// Notes that the server had no room for the body.
    pub(in crate::http) fn refuse(&self, refusal: ActionError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    pub(in crate::http) fn take_refusal(&self) -> Option<ActionError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sets the permit of the request; `None` gives it back.
    pub(in crate::http) fn set_run_permit(&self, run_permit: Option<RunPermit>) {
        *self.run_permit.lock().unwrap_or_else(PoisonError::into_inner) = run_permit;
    }

    /// Takes the permit of the request.
    pub(in crate::http) fn take_run_permit(&self) -> Option<RunPermit> {
        self.run_permit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives everything back that the request has of the node's bounds.
    pub(in crate::http) fn release(&self) {
        self.set_run_permit(None);
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps the permit for the memory of the body until the response is sent.
    pub(in crate::http) fn keep_memory(&self, memory: SharedPermit) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    }

    pub(in crate::http) fn show(&self, action: Arc<RegisteredAction>, params: Map<String, Value>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((action, params));
    }

    pub(in crate::http) fn take_shown(&self) -> Option<ShownParams> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn body(&self) -> MutexGuard<'_, Option<B>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        if !self.has_ended.swap(true, Relaxed) {
            self.activity.end_body();
        }
    }
}

/// A body while it is read.
#[derive(Debug)]
pub(in crate::http) struct LentBody<B = Incoming> {
    body: Option<B>,
    request: Arc<RequestBody<B>>,
}

impl<B> LentBody<B> {
    /// Drops the rest of the body.
    pub(in crate::http) fn discard(mut self) {
        self.body = None;
    }
}

impl<B> Body for LentBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.request.received.fetch_add(data.len() as u64, Relaxed);
            }
            if frame.is_none() || body.is_end_stream() {
                this.request.end();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> Drop for LentBody<B> {
    fn drop(&mut self) {
        *self.request.body() = self.body.take();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_client_counts_as_sending_until_its_body_has_ended() {
        let pieces = stream::iter([Ok(Frame::data(Bytes::from("ab"))), Err("gone"), Ok(Frame::data(Bytes::from("c")))]);
        let activity = Arc::<Activity>::default();
        let request = RequestBody::new(StreamBody::new(pieces), false, activity.clone());
        for (received, has_ended) in [(2, false), (2, false), (3, false), (3, true)] {
            let mut body = request.lend().expect("the reader before gave it back");
            assert!(request.lend().is_none(), "it has one reader at a time");
            assert_eq!(body.frame().await.is_none(), has_ended);
            assert_eq!((request.received(), activity.is_sending()), (received, !has_ended));
        }
    }
}

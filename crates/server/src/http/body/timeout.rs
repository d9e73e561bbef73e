//! A body that must keep coming.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use phalanx_core::bound_reached;
use phalanx_core::config::Web;
use tokio::time::{Instant, Sleep, sleep};

/// A body that is waited for at most `web.body_timeout` at a time, and in all for that and a second for each
/// `web.min_body_rate` that came. Time in which nobody asks for more of it is not the client's and does not count.
#[derive(Debug)]
pub(in crate::http) struct Paced<B> {
    body: B,
    timeout: Duration,
    rate: u64,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Cleared at its end: from then on nothing of it is left to read.
    is_sending: Arc<AtomicBool>,
    is_late: Option<Arc<AtomicBool>>,
}

/// What a body that is too slow breaks off with.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come in time")]
pub(in crate::http) struct Late;

impl<B> Paced<B> {
    pub(in crate::http) fn new(body: B, settings: &Web, is_sending: Arc<AtomicBool>) -> Self {
        Self {
            body,
            timeout: settings.body_timeout,
            rate: settings.min_body_rate.as_u64(),
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            is_sending,
            is_late: None,
        }
    }

    /// Tells whether it broke off as too slow, to whoever has passed it on.
    pub(in crate::http) fn is_late(&mut self) -> Arc<AtomicBool> {
        self.is_late.get_or_insert_default().clone()
    }

    /// How long the next piece may take.
    fn patience(&self) -> Duration {
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / self.rate);
        self.timeout.min((self.timeout + earned).saturating_sub(self.waited))
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            if frame.is_none() || this.body.is_end_stream() {
                this.is_sending.store(false, Relaxed);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = this.patience();
        let (_, alarm) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
        ready!(alarm.as_mut().poll(cx));
        bound_reached("web.body_timeout");
        if let Some(is_late) = &this.is_late {
            is_late.store(true, Relaxed);
        }
        Poll::Ready(Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Reads a body of pieces that come one by one, each after a pause; says whether it came, and for how many seconds it
    /// was read.
    async fn read(pieces: usize, size: usize, pause: Duration) -> (bool, u64) {
        let pieces = stream::iter(vec![vec![b'x'; size]; pieces]).then(async |piece| {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))
        });
        let settings = Web { min_body_rate: "1KiB".parse().unwrap(), ..Web::default() };
        let started = Instant::now();
        let read = Paced::new(Box::pin(StreamBody::new(pieces)), &settings, Arc::default()).collect().await;
        (read.is_ok(), started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_as_long_as_it_keeps_its_pace_and_no_longer() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(read(300, 1024, second).await, (true, 300), "at the slowest pace");
        assert!(!read(300, 1, second / 2).await.0, "pauses add up");
        assert_eq!(read(300, 1, second).await, (false, 60), "a trickle");
        assert_eq!(read(2, 1 << 20, minute + second).await, (false, 60), "a pause, whatever came before");
        assert!(read(2, 1 << 20, minute - second).await.0);
    }

    #[tokio::test]
    async fn a_client_sends_until_its_body_has_ended() {
        let pieces = stream::iter([Ok(Frame::data(Bytes::from("a"))), Err("gone"), Ok(Frame::data(Bytes::from("b")))]);
        let is_sending = Arc::new(AtomicBool::new(true));
        let mut body = Paced::new(StreamBody::new(pieces), &Web::default(), is_sending.clone());
        for is_over in [false, false, false, true] {
            assert_eq!(body.frame().await.is_none(), is_over);
            assert_eq!(is_sending.load(Relaxed), !is_over);
        }
    }
}

//! A body with a timeout and a minimum rate.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use phalanx_core::config::Web;
use phalanx_core::{ActionError, ErrorKind, bound_reached};
use tokio::time::{Instant, Sleep, sleep};

/// A body that may be pending for at most `web.body_timeout` at a time, and in total for `web.body_timeout` plus a
/// second for each `web.min_body_rate` of bytes that arrived. Only time during which the server waits for the client
/// counts: from a pending poll to the next frame.
#[derive(Debug)]
pub(in crate::http) struct TimedBody<B> {
    body: B,
    timeout: Duration,
    rate: u64,
    received: u64,
    waited: Duration,
    /// The start of the current wait, and its timer.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// The error of a body that is too slow.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come in time")]
pub(in crate::http) struct BodyTimeout;

impl BodyTimeout {
    /// The code of its error.
    pub(in crate::http) const CODE: &str = "request_timeout";
}

impl From<BodyTimeout> for ActionError {
    fn from(timeout: BodyTimeout) -> Self {
        Self::new(ErrorKind::Timeout, BodyTimeout::CODE, timeout.to_string())
    }
}

impl<B> TimedBody<B> {
    pub(in crate::http) fn new(body: B, settings: &Web) -> Self {
        Self {
            body,
            timeout: settings.body_timeout,
            rate: settings.min_body_rate.as_u64(),
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
        }
    }

    /// Returns how long the next frame may take.
    fn time_left(&self) -> Duration {
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / self.rate);
        self.timeout.min((self.timeout + earned).saturating_sub(self.waited))
    }
}

impl<B> Body for TimedBody<B>
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
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let time_left = this.time_left();
        let (_, timer) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(time_left))));
        ready!(timer.as_mut().poll(cx));
        bound_reached("web.body_timeout");
        Poll::Ready(Some(Err(BodyTimeout.into())))
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

    /// Reads a body whose pieces arrive one by one, each after a pause; returns whether it arrived completely, and how
    /// many seconds that took.
    async fn read(pieces: usize, size: usize, pause: Duration) -> (bool, u64) {
        let pieces = stream::iter(vec![vec![b'x'; size]; pieces]).then(async |piece| {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))
        });
        let settings = Web { min_body_rate: "1KiB".parse().unwrap(), ..Web::default() };
        let started = Instant::now();
        let read = TimedBody::new(Box::pin(StreamBody::new(pieces)), &settings).collect().await;
        (read.is_ok(), started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_for_as_long_as_it_arrives_at_the_minimum_rate() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(read(300, 1024, second).await, (true, 300), "at the minimum rate");
        assert!(!read(300, 1, second / 2).await.0, "pauses add up");
        assert_eq!(read(300, 1, second).await, (false, 60), "a trickle");
        assert_eq!(read(2, 1 << 20, minute + second).await, (false, 60), "a pause, whatever came before");
        assert!(read(2, 1 << 20, minute - second).await.0);
    }
}

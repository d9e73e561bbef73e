//! The drain of connections: a node that stops closes none that a client is about to use.
//!
//! Once it begins, every response says `connection: close`, and a request that comes on an open connection is served
//! like any other. A connection without a request stays open until it was quiet for `web.drain`, and is closed only if
//! the kernel has nothing to read from it at that instant. So a request is lost only if it crosses the close on the wire.

use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use phalanx_core::Successor;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;

/// The shortest time after which a connection that is not idle is looked at again without an event of its own.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The end of serving: a drain, and a cut for what outlasts the node's grace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<DrainState>);

#[derive(Debug, Default)]
struct DrainState {
    /// The same as the token says: each request and each poll of a connection looks here, and a token has a lock.
    has_begun: AtomicBool,
    begun: CancellationToken,
    cut: CancellationToken,
    /// The connections that were cut while a request was open.
    cut_requests: AtomicUsize,
    listening: Mutex<Listening>,
}

/// The listening socket once the drain has begun.
#[derive(Debug, Default)]
struct Listening {
    successor: Successor,
    /// The socket, if the successor is to get it.
    kept: Option<TcpListener>,
}

/// A connection, as its drain sees it.
pub(super) trait DrainedConnection {
    /// Serves it; ready when it has ended.
    fn poll_serve(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// Closes it as soon as no request runs.
    fn close_when_idle(self: Pin<&mut Self>);
}

impl Drain {
    /// Begins the drain. A second call has no effect.
    pub(crate) fn begin(&self, successor: Successor) {
        if !self.0.has_begun.swap(true, Relaxed) {
            self.listening().successor = successor;
        }
        self.0.begun.cancel();
    }

    /// Ends all connections of a drain, whatever runs on them.
    pub(crate) fn cut(&self) {
        self.0.cut.cancel();
    }

    /// The process that accepts the connections that wait once the drain has begun.
    pub(super) fn successor(&self) -> Successor {
        self.listening().successor
    }

    /// Keeps the listening socket for a successor.
    pub(super) fn keep(&self, socket: TcpListener) {
        self.listening().kept = Some(socket);
    }

    /// Takes the listening socket that was kept.
    pub(crate) fn take_kept(&self) -> Option<TcpListener> {
        self.listening().kept.take()
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.0.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests the cut has ended so far.
    pub(crate) fn cut_requests(&self) -> usize {
        self.0.cut_requests.load(Relaxed)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.has_begun.load(Relaxed)
    }

    /// Completes when the drain begins.
    pub(super) async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// Serves a connection to its end, and drains it once the drain begins. Not to be moved to another task after its
    /// first poll.
    pub(super) async fn serve<C: DrainedConnection>(&self, connection: C, activity: &Activity, quiet: Duration) {
        let mut connection = pin!(connection);
        let has_ended = self.serve_until_begun(connection.as_mut()).await;
        if !has_ended {
            self.drain(connection, activity, quiet).await;
        }
    }

    /// Serves a connection until it ends or the drain begins; returns whether it has ended.
    async fn serve_until_begun<C: DrainedConnection>(&self, mut connection: Pin<&mut C>) -> bool {
        let mut begun = pin!(self.0.begun.cancelled());
        let mut is_registered = false;
        poll_fn(|cx| {
            if connection.as_mut().poll_serve(cx).is_ready() {
                return Poll::Ready(true);
            }
            // A task's waker stays the same, so it is registered once: to do it at each poll would take a lock.
            if !std::mem::replace(&mut is_registered, true) && begun.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            if self.has_begun() { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    async fn drain<C: DrainedConnection>(&self, mut connection: Pin<&mut C>, activity: &Activity, quiet: Duration) {
        let mut cut = pin!(self.0.cut.cancelled());
        let mut timer = pin!(sleep(quiet));
        let mut events = activity.events();
        let mut is_closing = false;
        poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                self.0.cut_requests.fetch_add(usize::from(activity.has_request()), Relaxed);
                return Poll::Ready(());
            }
            if connection.as_mut().poll_serve(cx).is_ready() {
                return Poll::Ready(());
            }
            while !is_closing {
                if activity.events() != events {
                    events = activity.events();
                    timer.set(sleep(quiet)); // of any length: a later instant may not exist
                }
                if timer.as_mut().poll(cx).is_pending() {
                    break;
                }
                if !activity.is_idle() {
                    timer.set(sleep(quiet.max(SHORTEST_PAUSE)));
                    continue;
                }
                activity.set_probing(true);
                let served = connection.as_mut().poll_serve(cx);
                activity.set_probing(false);
                if served.is_ready() {
                    return Poll::Ready(());
                }
                if activity.events() == events && activity.is_idle() {
                    is_closing = true;
                    connection.as_mut().close_when_idle();
                    return connection.as_mut().poll_serve(cx);
                }
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests;

//! The lingering close: reads and discards what a client still sends after its response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use phalanx_core::bound_reached;
use phalanx_core::config::Web;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::quota::{Quota, SharedPermit};
use crate::shares::{AddressShare, SharedBound};

/// How long a closed connection reads on, and how much.
///
/// The kernel resets a connection that is closed with unread input, and the client then loses its response: a program
/// that sends all of its body before it reads gets the refusal only if its bytes are taken.
#[derive(Clone, Debug)]
pub(crate) struct LingerLimits {
    pub(crate) idle: Duration,
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
    /// A connection that lingers counts as a body that is awaited.
    pub(crate) waiting_bodies: Quota,
}

impl LingerLimits {
    pub(crate) fn new(settings: &Web, waiting_bodies: Quota) -> Self {
        let (idle, time) = (settings.linger_idle, settings.linger_timeout);
        Self { idle, time, bytes: settings.max_upload.as_u64(), waiting_bodies }
    }
}

/// A connection that lingers.
#[derive(Debug)]
pub(super) struct LingeringClose {
    pub(super) read: u64,
    ends: Instant,
    idle: Pin<Box<Sleep>>,
    _permit: SharedPermit,
}

impl LingeringClose {
    /// Starts to linger; `None` if as many connections do as may.
    pub(super) fn start(limits: &LingerLimits, share: Option<&Arc<AddressShare>>) -> Option<Self> {
        let permit = SharedPermit::try_acquire(&limits.waiting_bodies, share, SharedBound::WaitingBodies, 1).ok()?;
        let now = Instant::now();
        let idle = Box::pin(sleep_until(now + limits.idle.min(limits.time)));
        Some(Self { read: 0, ends: now + limits.time, idle, _permit: permit })
    }

    /// Notes what was read, or that there was nothing to read; ready when the connection has lingered for long enough.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: Option<u64>, limits: &LingerLimits) -> Poll<()> {
        let Some(bytes) = read else { return self.idle.as_mut().poll(cx) };
        self.read += bytes;
        if self.read > limits.bytes {
            bound_reached("linger_bytes");
            return Poll::Ready(());
        }
        let now = Instant::now();
        if now >= self.ends {
            bound_reached("web.linger_timeout");
            return Poll::Ready(());
        }
        self.idle.as_mut().reset((now + limits.idle).min(self.ends));
        Poll::Pending
    }
}

/// Reads and discards; `Ready` with zero at the end of the stream.
pub(super) fn poll_discard(stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
    let mut scratch = [0; 16 * 1024];
    let mut buf = ReadBuf::new(&mut scratch);
    Pin::new(stream).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len() as u64)
}

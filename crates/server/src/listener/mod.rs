//! The listening socket, and the TCP stream of each accepted connection: write timeout, lingering close, reset.

mod activity;
mod admission;
mod drain;
mod linger;
mod serve;

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut as _;
use phalanx_core::bound_reached;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;

pub(crate) use activity::Activity;
pub(crate) use admission::{Admission, Beyond};
pub(crate) use drain::Drain;
pub(crate) use linger::LingerLimits;
use linger::{LingeringClose, poll_discard};
pub(crate) use serve::{HttpListener, protocol};

use crate::quota::QuotaPermit;
use crate::shares::{AddressShare, SharePermit};

/// The number of connections that the kernel queues until they are accepted.
pub const BACKLOG: i32 = 4096;

/// The number of headers that hyper accepts by default.
const HYPER_MAX_HEADERS: usize = 100;

/// The most bytes that one read takes.
///
/// hyper's read buffer of a connection starts with 8 KiB. A read that fills it makes hyper ask for twice as much, in a
/// buffer of 24 KiB, as long as the body is awaited; `web.max_bodies_total` counts none of it.
const READ_AT_MOST: usize = 8 * 1024 - 1;

/// The bytes that a closed connection discards before the others have their turn: the kernel has megabytes of a client that
/// sends on, which take as long as a hundred requests.
const DISCARD_AT_MOST: u64 = 64 * 1024;

/// Binds a socket. Until [`listen`], clients are refused.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Starts to listen. A socket that listens already goes on, with the connections that wait.
pub(crate) fn listen(socket: &TcpListener) -> io::Result<()> {
    SockRef::from(socket).listen(BACKLOG)
}

/// The TCP stream of an accepted connection.
///
/// It can be reset instead of closed when it is dropped: after a plain close the kernel would keep the bytes that the
/// client never read, up to megabytes of them. A client that reads nothing for `web.write_timeout` is reset as well.
///
/// Fields are laid out as they are declared: those that every read and write touches come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct AcceptedStream {
    stream: TcpStream,
    /// Runs while a write is pending.
    write_deadline: Option<Pin<Box<Sleep>>>,
    resets_on_drop: bool,
    write_timeout: Duration,
    linger: Arc<LingerLimits>,
    /// The share of the peer's address.
    share: Option<Arc<AddressShare>>,
    /// Set once the connection is closed and reads on.
    lingering: Option<Box<LingeringClose>>,
    activity: Arc<Activity>,
    /// The permits of an HTTP connection; a socket has permits of its own.
    permit: Option<(QuotaPermit, Option<SharePermit>)>,
}

impl AcceptedStream {
    /// Makes the drop of this stream reset the connection.
    pub(crate) fn reset_on_drop(&mut self) {
        self.resets_on_drop = true;
    }

    /// Gives the permits of an HTTP connection back: it was upgraded, and counts as a socket from now on.
    pub(crate) fn release_permit(&mut self) {
        self.permit = None;
    }

    /// Ready when there may be something to read, or the end of the stream; cheaper than a read attempt.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }

    /// Applies the write timeout to the result of a write: one that is pending for too long fails.
    fn with_timeout<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.write_deadline.take().is_some() {
                self.activity.end_pending_write();
            }
            return written;
        }
        let limit = self.write_timeout;
        let deadline = self.write_deadline.get_or_insert_with(|| {
            self.activity.begin_pending_write();
            Box::pin(sleep(limit))
        });
        ready!(deadline.as_mut().poll(cx));
        bound_reached("web.write_timeout");
        self.reset_on_drop();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AcceptedStream {
    /// Reads and discards what a client still sends, so that it gets its response and not a reset.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.resets_on_drop {
            return Poll::Ready(());
        }
        let mut discarded = 0;
        while discarded < DISCARD_AT_MOST {
            let bytes = match poll_discard(&mut self.stream, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(bytes)) => Some(bytes),
                Poll::Pending if self.lingering.is_none() && !self.activity.is_sending() => {
                    return Poll::Ready(());
                }
                Poll::Pending => None,
            };
            if self.lingering.is_none() {
                self.lingering = LingeringClose::start(&self.linger, self.share.as_ref()).map(Box::new);
            }
            let Some(lingering) = &mut self.lingering else { return Poll::Ready(()) };
            if lingering.poll(cx, bytes, &self.linger).is_ready() {
                return Poll::Ready(());
            }
            match bytes {
                Some(bytes) => discarded += bytes,
                None => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AcceptedStream {
    /// Whether the kernel has bytes or the end of the stream to read, of which the runtime may not know yet.
    fn has_input(&self) -> bool {
        SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]).is_ok()
    }
}

impl Drop for AcceptedStream {
    fn drop(&mut self) {
        if self.resets_on_drop {
            // If this fails, the kernel keeps the bytes for a while: nothing else depends on it.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for AcceptedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut buf.limit(READ_AT_MOST));
        if matches!(read, Poll::Ready(Ok(1..))) || (read.is_pending() && self.activity.is_probing() && self.has_input())
        {
            self.activity.note_read();
        }
        read.map_ok(drop)
    }
}

impl AsyncWrite for AcceptedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.with_timeout(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.with_timeout(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;

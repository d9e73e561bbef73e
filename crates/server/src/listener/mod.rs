//! The listening socket: how it is bound, whom it admits, and how a connection is reset.

mod admission;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::Server;
use phalanx_core::bound_reached;
use phalanx_core::config::Web;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

pub(crate) use admission::{Admission, Serve};

use crate::quota::Share;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How many headers hyper takes unless told otherwise.
const HYPER_MAX_HEADERS: usize = 100;

/// Binds and listens.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets hyper's limits: none of its own defaults is safe for the open internet.
pub(crate) fn configure<A>(server: &mut Server<SocketAddr, A>, settings: &Web) {
    let head = settings.max_header_bytes.as_u64() as usize;
    let builder = server.http_builder();
    builder.http1().header_read_timeout(settings.header_timeout).max_buf_size(head.max(8192));
    if settings.max_headers != HYPER_MAX_HEADERS {
        builder.http1().max_headers(settings.max_headers); // costs an allocation a request
    }
}

/// A TCP stream that is reset when it is dropped, if somebody asked for that: a plain close would leave what the client
/// never read, megabytes of it, in the kernel. A client that takes nothing for `web.write_timeout` asks for it too.
///
/// Laid out as it is declared: what each read and write touches comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stream {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
    is_to_reset: bool,
    is_begun: bool,
    write_timeout: Duration,
    lingering: Option<(u64, Pin<Box<Sleep>>)>,
    is_sending: Arc<AtomicBool>,
    _place: Share,
}

impl Stream {
    /// Has the connection reset once this is dropped.
    pub(crate) fn reset(&mut self) {
        self.is_to_reset = true;
    }

    /// Ready when there may be something to read, or the end; cheaper than to try.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }

    /// Notes how a write went; one that waits too long fails.
    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        bound_reached("web.write_timeout");
        self.reset();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// How much and how long a client is still listened to that was answered before it had sent everything.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

impl Stream {
    /// Reads on for a moment: a connection that is closed with something unread is reset, and the client loses its answer.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_to_reset {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
            let (bytes, is_pending) = (buf.filled().len() as u64, read.is_pending());
            let is_done = match read {
                Poll::Ready(read) => read.is_err() || bytes == 0,
                Poll::Pending => self.lingering.is_none() && !self.is_sending.load(Relaxed),
            };
            if is_done {
                return Poll::Ready(());
            }
            let (read, over) = self.lingering.get_or_insert_with(|| (0, Box::pin(sleep(LINGER_TIME))));
            *read += bytes;
            if *read > LINGER_BYTES {
                return Poll::Ready(());
            }
            if is_pending {
                return over.as_mut().poll(cx);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_to_reset {
            // If it fails the kernel keeps the bytes for a while: nothing else depends on it.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    /// Begins with a read of nothing. hyper-util decides by what it reads first whether a client speaks HTTP/2, whose
    /// answers hyper would buffer without end for one that never reads; after nothing it decides for HTTP/1. It has no
    /// setting for that where connections are upgraded.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.linger(cx).map(Ok)
    }
}

//! What a connection is written to and read from: frames over an upgraded connection.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use phalanx_core::config::Websocket;
use phalanx_core::connection::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::write_buffer::Batch;
use crate::listener::Stream;

/// What tungstenite reads into; it keeps its high-water mark for the life of a socket, so it starts small.
const READ_BUFFER: usize = 1024;

/// What tungstenite holds of its own frames, those that control the connection, for a client that takes none. Beyond it
/// only the last ping is answered (RFC 6455, 5.5.3).
const CONTROL_BUFFER: usize = 4 * 1024;

/// The wire of one connection: the stream that the listener accepted, read and controlled by tungstenite. What the
/// outbox holds goes out beside it, never in the middle of a frame.
///
/// Laid out as it is declared: the parts that a broadcast touches stand together, for it meets every socket's cold.
#[repr(C)]
pub(super) struct Wire {
    /// Whether tungstenite may have something to write.
    owes: bool,
    /// Whether the last read found that there was nothing more.
    is_drained: bool,
    /// Whether nothing more can be read.
    has_ended: bool,
    /// What the client has not taken yet of what was begun.
    rest: [Bytes; 2],
    /// What is to follow of a message in parts.
    parts: Bytes,
    stream: Stream,
    protocol: WebSocketContext,
}

impl Wire {
    /// Takes over an upgraded connection, if it is one that the listener accepted.
    pub(super) fn new(upgraded: Upgraded, settings: &Websocket) -> Option<Self> {
        let most = settings.max_frame_bytes.as_u64() as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let parts = downcast::<TokioIo<Stream>>(upgraded).ok()?;
        let early = parts.read_buf.to_vec(); // copied, for it would keep the buffer that hyper reads heads into
        Some(Self {
            owes: false,
            is_drained: false,
            has_ended: false,
            rest: [Bytes::new(), Bytes::new()],
            parts: Bytes::new(),
            stream: parts.io.into_inner(),
            protocol: WebSocketContext::from_partially_read(early, Role::Server, Some(config)),
        })
    }

    pub(super) fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if self.is_drained {
            // Most wake-ups bring something to write; that nothing came to read costs a look.
            ready!(self.stream.poll_readable(task));
        }
        let (protocol, mut polled) = self.polled(task);
        let read = pending(protocol.read(&mut polled));
        self.is_drained = read.is_pending();
        let read = ready!(read);
        self.has_ended = read.is_err();
        self.owes |= matches!(read, Ok(Message::Ping(_) | Message::Close(_))); // it answers by itself
        Poll::Ready(match read {
            Err(Error::AlreadyClosed | Error::ConnectionClosed) => None,
            read => Some(read),
        })
    }

    /// Begins to write a batch; what the client does not take at once stays for [`Wire::poll_flush`], which must have
    /// been ready before.
    pub(super) fn start(&mut self, batch: &Batch, task: &mut Context<'_>) -> io::Result<()> {
        let (head, tail) = batch.now();
        let stream = Pin::new(&mut self.stream);
        let written = match tail.is_empty() {
            true => stream.poll_write(task, head),
            false => stream.poll_write_vectored(task, &[IoSlice::new(head), IoSlice::new(tail)]),
        };
        let written = match written {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if written < head.len() + tail.len() {
            let of_head = written.min(head.len());
            self.rest = [Bytes::copy_from_slice(&head[of_head..]), tail.slice(written - of_head..)];
        }
        if !batch.rest().is_empty() {
            self.parts = batch.rest().clone();
        }
        Ok(())
    }

    pub(super) fn start_ping(&mut self, task: &mut Context<'_>) -> Result<(), Error> {
        self.start_control(Message::Ping(Bytes::new()), task)
    }

    fn start_control(&mut self, message: Message, task: &mut Context<'_>) -> Result<(), Error> {
        self.owes = true;
        let (protocol, mut polled) = self.polled(task);
        match pending(protocol.write(&mut polled, message)) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()), // it is in the buffer
        }
    }

    /// Writes what was begun, and what tungstenite has to say between two frames; ready when all of it is with the kernel.
    pub(super) fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.poll_rest(task))?;
            if self.owes {
                ready!(self.poll_control(task))?;
            }
            if self.parts.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let part = Batch::next_part(std::mem::take(&mut self.parts));
            self.start(&part, task)?;
        }
    }

    fn poll_rest(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.rest.iter_mut().find(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(task, rest))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            rest.advance(written);
            if rest.is_empty() {
                *rest = Bytes::new(); // it would keep what it was a part of
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what tungstenite has to say. Asks twice: what found its buffer full goes into it once that is empty.
    fn poll_control(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..2 {
            let (protocol, mut polled) = self.polled(task);
            match ready!(pending(protocol.flush(&mut polled))) {
                Ok(()) | Err(Error::ConnectionClosed) => {} // the close frame was the last to go out
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.owes = false;
        Poll::Ready(Ok(()))
    }

    fn polled<'a, 'b>(&'a mut self, task: &'a mut Context<'b>) -> (&'a mut WebSocketContext, Polled<'a, 'b>) {
        let within_frame = self.rest.iter().any(|rest| !rest.is_empty());
        (&mut self.protocol, Polled { stream: &mut self.stream, task, within_frame })
    }

    /// Has the connection reset in place of closed once the wire is dropped.
    pub(super) fn reset(&mut self) {
        self.stream.reset();
    }

    /// Says why it ends, once all that was begun is written, and waits until the client has heard it.
    ///
    /// A connection that is closed while there is input that nobody read breaks off at once, and the client may never
    /// see the close frame. So what still comes is read and dropped: frame by frame until the client's close frame, or
    /// byte by byte to the end where frames cannot be read any more.
    pub(super) async fn say_goodbye(&mut self, reason: CloseReason) -> Result<(), Error> {
        let close = CloseFrame { code: reason.code().into(), reason: Utf8Bytes::from_static(reason.as_str()) };
        poll_fn(|task| Poll::Ready(self.start_control(Message::Close(Some(close.clone())), task))).await?;
        poll_fn(|task| self.poll_flush(task)).await?;
        while let Some(Ok(message)) = poll_fn(|task| self.poll_read(task)).await {
            if message.is_close() {
                return Ok(());
            }
        }
        self.stream.shutdown().await?;
        Ok(poll_fn(|task| poll_to_the_end(&mut self.stream, task)).await?)
    }

    /// Returns the client's close frame. A message in parts is not finished: nobody hears it any more.
    pub(super) async fn return_goodbye(&mut self) -> Result<(), Error> {
        self.parts = Bytes::new();
        poll_fn(|task| self.poll_flush(task)).await
    }
}

/// The stream within one poll, as tungstenite reads and writes it: what is pending would block.
struct Polled<'a, 'b> {
    stream: &'a mut Stream,
    task: &'a mut Context<'b>,
    /// Whether a frame was begun that is not tungstenite's.
    within_frame: bool,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.stream).poll_read(self.task, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.within_frame {
            return Err(ErrorKind::WouldBlock.into());
        }
        match Pin::new(&mut *self.stream).poll_write(self.task, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // a TCP stream keeps nothing back
    }
}

/// What tungstenite would wait for is pending; the stream has the task's waker.
fn pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn poll_to_the_end(stream: &mut Stream, task: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut scratch = [0; 1024];
    loop {
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *stream).poll_read(task, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}

/// What an error of the wire means for its connection.
pub(super) fn reason_of(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(_) => CloseReason::TooBig,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Broken,
        Error::Utf8(_) | Error::Protocol(_) => CloseReason::Policy,
        _ => CloseReason::Broken,
    }
}

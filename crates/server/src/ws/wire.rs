//! What a connection is written to and read from: frames over an upgraded connection.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use phalanx_core::config::Websocket;
use phalanx_core::connection::{CloseReason, Frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::listener::Stream;

/// Both buffers keep their high-water mark for the life of a socket, so they start small; a write buffer of zero would
/// write every frame at once.
const READ_BUFFER: usize = 1024;
const WRITE_BUFFER: usize = 8 * 1024;

/// A message beyond this goes out in parts: whole, it would cost its size in the write buffer for ever.
const PART: usize = 16 * 1024;

/// The wire of one connection: tungstenite's protocol over the stream that the listener accepted. No wrapper stands
/// between them, for every frame would pay for it.
#[repr(C)]
pub(super) struct Wire {
    /// Whether something was left in the write buffer because the client took no more.
    is_blocked: bool,
    /// Whether the last read found that there was nothing more.
    is_drained: bool,
    /// Whether nothing more can be read.
    has_ended: bool,
    /// What is still to be written of a message in parts.
    rest: Bytes,
    stream: Stream,
    protocol: WebSocketContext,
}

impl Wire {
    /// Takes over an upgraded connection, if it is one that the listener accepted.
    pub(super) fn new(upgraded: Upgraded, settings: &Websocket) -> Option<Self> {
        let most = settings.max_frame_bytes.as_u64() as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + 2 * PART)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let parts = downcast::<TokioIo<Stream>>(upgraded).ok()?;
        let early = parts.read_buf.to_vec(); // copied, for it would keep the buffer that hyper reads heads into
        Some(Self {
            protocol: WebSocketContext::from_partially_read(early, Role::Server, Some(config)),
            stream: parts.io.into_inner(),
            rest: Bytes::new(),
            is_blocked: false,
            is_drained: false,
            has_ended: false,
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
        let read = pending(self.protocol.read(&mut Polled { stream: &mut self.stream, task }));
        self.is_drained = read.is_pending();
        let read = ready!(read);
        self.has_ended = read.is_err();
        Poll::Ready(match read {
            Err(Error::AlreadyClosed | Error::ConnectionClosed) => None,
            read => Some(read),
        })
    }

    /// Ready when it may be given a message, all of the one before being with the kernel or in the write buffer.
    pub(super) fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.is_blocked {
                ready!(self.poll_flush(task))?;
            }
            if self.rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let part = self.rest.split_to(PART.min(self.rest.len()));
            self.start_part(part, Data::Continue, task)?;
        }
    }

    pub(super) fn start_send(&mut self, frame: Frame, task: &mut Context<'_>) -> Result<(), Error> {
        let (mut bytes, kind) = match frame {
            Frame::Text(bytes) => (bytes, Data::Text),
            Frame::Binary(bytes) => (bytes, Data::Binary),
        };
        self.rest = bytes.split_off(PART.min(bytes.len()));
        self.start_part(bytes, kind, task)
    }

    fn start_part(&mut self, part: Bytes, kind: Data, task: &mut Context<'_>) -> Result<(), Error> {
        let frame = WireFrame::message(part, OpCode::Data(kind), self.rest.is_empty());
        self.start(Message::Frame(frame), task)
    }

    pub(super) fn start_ping(&mut self, task: &mut Context<'_>) -> Result<(), Error> {
        self.start(Message::Ping(Bytes::new()), task)
    }

    /// Puts a message into the write buffer, and writes the buffer when it is full.
    fn start(&mut self, message: Message, task: &mut Context<'_>) -> Result<(), Error> {
        match pending(self.protocol.write(&mut Polled { stream: &mut self.stream, task }, message)) {
            Poll::Ready(written) => written,
            Poll::Pending => {
                self.is_blocked = true;
                Ok(())
            }
        }
    }

    /// Writes what is buffered; ready when all of it is with the kernel.
    pub(super) fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = ready!(pending(self.protocol.flush(&mut Polled { stream: &mut self.stream, task })));
        self.is_blocked = false;
        Poll::Ready(match flushed {
            Err(Error::ConnectionClosed) => Ok(()), // the close frame was the last to go out
            flushed => flushed,
        })
    }

    /// Has the connection reset in place of closed once the wire is dropped.
    pub(super) fn reset(&mut self) {
        self.stream.reset();
    }

    /// Says why it ends and waits until the client has heard it.
    ///
    /// A connection that is closed while there is input that nobody read breaks off at once, and the client may never
    /// see the close frame. So what still comes is read and dropped: frame by frame until the client's close frame, or
    /// byte by byte to the end where frames cannot be read any more.
    pub(super) async fn say_goodbye(&mut self, reason: CloseReason) -> Result<(), Error> {
        self.rest = Bytes::new();
        let close = CloseFrame { code: reason.code().into(), reason: Utf8Bytes::from_static(reason.as_str()) };
        poll_fn(|task| self.poll_ready(task)).await?;
        poll_fn(|task| Poll::Ready(self.start(Message::Close(Some(close.clone())), task))).await?;
        poll_fn(|task| self.poll_flush(task)).await?;
        while let Some(Ok(message)) = poll_fn(|task| self.poll_read(task)).await {
            if message.is_close() {
                return Ok(());
            }
        }
        self.stream.shutdown().await?;
        Ok(poll_fn(|task| poll_to_the_end(&mut self.stream, task)).await?)
    }

    /// Returns the client's close frame.
    pub(super) async fn return_goodbye(&mut self) -> Result<(), Error> {
        poll_fn(|task| self.poll_flush(task)).await
    }
}

/// The stream within one poll, as tungstenite reads and writes it: what is pending would block.
struct Polled<'a, 'b> {
    stream: &'a mut Stream,
    task: &'a mut Context<'b>,
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
        // It pings and pings, and takes none of the pongs.
        Error::WriteBufferFull(_) => CloseReason::SlowReader,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Broken,
        Error::Utf8(_) | Error::Protocol(_) => CloseReason::Policy,
        _ => CloseReason::Broken,
    }
}

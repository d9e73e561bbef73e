//! The stream of frames over an upgraded connection.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use phalanx_core::config::Websocket;
use phalanx_core::protocol::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::overhead::Overhead;
use super::write_buffer::WriteBuffer;
use crate::listener::AcceptedStream;

/// The initial size of tungstenite's read buffer, and the most that it reads at once. The buffer never shrinks while the
/// socket is open, so it starts small.
pub(super) const READ_BUFFER: usize = 1024;

/// The bytes after which a poll yields that has found no message in them: other sockets share the thread.
const READ_IN_A_ROW: usize = 16 * 1024;

/// The bytes of large messages after which a poll yields, for the same reason.
const WRITE_IN_A_ROW: usize = 64 * 1024;

/// The pause between two reads of up to 16 KiB that are discarded after a close.
const DISCARD_PACE: Duration = Duration::from_millis(10);

/// The bytes of control frames that tungstenite buffers for a client that does not read. When the buffer is full, only
/// the last ping is answered, which RFC 6455, 5.5.3, permits.
const CONTROL_BUFFER: usize = 4 * 1024;

/// The frames of one connection, over the stream that the listener accepted.
///
/// tungstenite reads, and writes control frames. Data frames of the outbox are written to the stream directly; each
/// writer waits until the frame of the other is complete.
///
/// Fields are laid out as they are declared: those that a broadcast touches are adjacent, because it finds those of
/// every socket outside the CPU cache.
#[repr(C)]
pub(super) struct FrameStream {
    /// Whether tungstenite may have control frames to write.
    control_pending: bool,
    /// Whether the last read found nothing more to read.
    is_drained: bool,
    /// Whether the read side has ended.
    read_ended: bool,
    /// The unwritten bytes of frames that were started.
    unwritten: [Bytes; 2],
    /// The remainder of a message that is sent in parts.
    remainder: Bytes,
    stream: AcceptedStream,
    protocol: WebSocketContext,
    overhead: Overhead,
}

impl FrameStream {
    /// Takes over an upgraded connection; `None` if the listener did not accept it.
    pub(super) fn new(upgraded: Upgraded, settings: &Websocket) -> Option<Self> {
        let max_bytes = settings.max_frame_bytes.as_u64() as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER)
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes));
        let parts = upgraded.downcast::<TokioIo<AcceptedStream>>().ok()?;
        let mut stream = parts.io.into_inner();
        stream.release_permit();
        // Copied: a slice would keep the buffer alive into which hyper read the request.
        let early = parts.read_buf.to_vec();
        Some(Self {
            control_pending: false,
            is_drained: false,
            read_ended: false,
            unwritten: [Bytes::new(), Bytes::new()],
            remainder: Bytes::new(),
            stream,
            protocol: WebSocketContext::from_partially_read(early, Role::Server, Some(config)),
            overhead: Overhead::new(max_bytes),
        })
    }

    /// Reads the next message; `None` at the end of the stream.
    pub(super) fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        self.poll_counted(task, &mut 0)
    }

    /// Reads the next message, and adds the bytes that were read to `total`.
    fn poll_counted(&mut self, task: &mut Context<'_>, total: &mut usize) -> Poll<Option<Result<Message, Error>>> {
        if self.read_ended {
            return Poll::Ready(None);
        }
        if self.is_drained {
            // Most wake-ups are for something to write; a readiness check is cheaper than an empty read.
            ready!(self.stream.poll_readable(task));
        }
        let (protocol, mut io) = self.sync_io(task);
        let read = would_block_to_pending(protocol.read(&mut io));
        let bytes = io.read;
        *total += bytes;
        self.overhead.add_read(bytes);
        self.is_drained = read.is_pending() && bytes < READ_IN_A_ROW;
        let read = ready!(read);
        self.read_ended = read.is_err();
        match &read {
            Ok(Message::Ping(payload) | Message::Pong(payload)) => self.overhead.settle_control(payload.len()),
            Ok(message) => self.overhead.settle(message.len()),
            Err(_) => {}
        }
        // tungstenite has queued the reply.
        self.control_pending |= matches!(read, Ok(Message::Ping(_) | Message::Close(_)));
        Poll::Ready(match read {
            Err(Error::AlreadyClosed | Error::ConnectionClosed) => None,
            read => Some(read),
        })
    }

    /// Returns the messages' worth of bytes that were read and are part of no message, since the last call.
    pub(super) fn take_overhead(&mut self) -> u32 {
        self.overhead.take_tokens()
    }

    /// Starts to write a buffer. [`FrameStream::poll_flush`] must have been ready before; it writes the bytes that the
    /// kernel does not accept at once.
    pub(super) fn start_write(&mut self, buffer: &WriteBuffer, task: &mut Context<'_>) -> io::Result<()> {
        let (head, tail) = buffer.slices();
        let stream = Pin::new(&mut self.stream);
        let written = if tail.is_empty() {
            stream.poll_write(task, head)
        } else {
            stream.poll_write_vectored(task, &[IoSlice::new(head), IoSlice::new(tail)])
        };
        let written = match written {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if written < head.len() + tail.len() {
            let written_head = written.min(head.len());
            self.unwritten = [Bytes::copy_from_slice(&head[written_head..]), tail.slice(written - written_head..)];
        }
        if !buffer.remainder().is_empty() {
            self.remainder = buffer.remainder().clone();
        }
        Ok(())
    }

    /// Queues a ping and starts to write it.
    pub(super) fn start_ping(&mut self, task: &mut Context<'_>) -> Result<(), Error> {
        self.start_control(Message::Ping(Bytes::new()), task)
    }

    fn start_control(&mut self, message: Message, task: &mut Context<'_>) -> Result<(), Error> {
        self.control_pending = true;
        let (protocol, mut io) = self.sync_io(task);
        match would_block_to_pending(protocol.write(&mut io, message)) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()), // it is in tungstenite's buffer
        }
    }

    /// Completes started frames and writes control frames between them; ready when the kernel has accepted all of it.
    /// Yields after [`WRITE_IN_A_ROW`].
    pub(super) fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut started = 0;
        loop {
            ready!(self.poll_unwritten(task))?;
            if self.control_pending {
                ready!(self.poll_control(task))?;
            }
            if self.remainder.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if started >= WRITE_IN_A_ROW {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = self.remainder.len();
            let part = WriteBuffer::next_part(std::mem::take(&mut self.remainder));
            self.start_write(&part, task)?;
            started += before - self.remainder.len();
        }
    }

    fn poll_unwritten(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.unwritten.iter_mut().find(|bytes| !bytes.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(task, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
            if bytes.is_empty() {
                *bytes = Bytes::new(); // an empty slice would keep the whole message alive
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes tungstenite's control frames. Flushes twice: a frame that found the buffer full enters it once the first
    /// flush has emptied it.
    fn poll_control(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..2 {
            let (protocol, mut io) = self.sync_io(task);
            match ready!(would_block_to_pending(protocol.flush(&mut io))) {
                Ok(()) | Err(Error::ConnectionClosed) => {} // the close frame is written, and nothing follows it
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.control_pending = false;
        Poll::Ready(Ok(()))
    }

    fn sync_io<'a, 'b>(&'a mut self, task: &'a mut Context<'b>) -> (&'a mut WebSocketContext, SyncIo<'a, 'b>) {
        let within_frame = self.unwritten.iter().any(|bytes| !bytes.is_empty());
        (&mut self.protocol, SyncIo { stream: &mut self.stream, task, within_frame, read: 0 })
    }

    /// Makes the drop of this stream reset the connection instead of closing it.
    pub(super) fn reset_on_drop(&mut self) {
        self.stream.reset_on_drop();
    }

    /// Sends the close frame after all started frames, and waits for the client's close frame.
    ///
    /// The kernel resets a connection that is closed with unread input, and the client may then never see the close
    /// frame. So further input is read and discarded: frame by frame until the client's close frame, or byte by byte
    /// until the end of the stream if its frames can no longer be decoded, or go on for more than [`READ_IN_A_ROW`].
    pub(super) async fn send_close(&mut self, reason: CloseReason) -> Result<(), Error> {
        let close = CloseFrame { code: reason.code().into(), reason: Utf8Bytes::from_static(reason.as_str()) };
        poll_fn(|task| Poll::Ready(self.start_control(Message::Close(Some(close.clone())), task))).await?;
        poll_fn(|task| self.poll_flush(task)).await?;
        let mut read = 0;
        while read < READ_IN_A_ROW {
            let next = poll_fn(|task| match self.poll_counted(task, &mut read) {
                Poll::Pending if read >= READ_IN_A_ROW => Poll::Ready(None),
                polled => polled,
            });
            match next.await {
                Some(Ok(message)) if message.is_close() => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        self.stream.shutdown().await?;
        Ok(self.discard().await?)
    }

    /// Reads and discards until the end of the stream, at a pace at which a client that goes on sending costs little.
    async fn discard(&mut self) -> io::Result<()> {
        let mut pace = interval(DISCARD_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            if poll_fn(|task| poll_discard(&mut self.stream, task)).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Replies to the client's close frame. The remainder of a message in parts is dropped: the client reads no more
    /// data.
    pub(super) async fn reply_to_close(&mut self) -> Result<(), Error> {
        self.remainder = Bytes::new();
        poll_fn(|task| self.poll_flush(task)).await
    }
}

/// The stream as the synchronous I/O that tungstenite expects, for one poll: `Pending` becomes `WouldBlock`.
struct SyncIo<'a, 'b> {
    stream: &'a mut AcceptedStream,
    task: &'a mut Context<'b>,
    /// Whether a data frame is partly written; control frames must wait for its end.
    within_frame: bool,
    /// The bytes read by this poll.
    read: usize,
}

impl Read for SyncIo<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read >= READ_IN_A_ROW {
            self.task.waker().wake_by_ref();
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.stream).poll_read(self.task, &mut buffer) {
            Poll::Ready(read) => {
                self.read += buffer.filled().len();
                read.map(|()| buffer.filled().len())
            }
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for SyncIo<'_, '_> {
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
        Ok(()) // a TCP stream has no buffer to flush
    }
}

/// Turns `WouldBlock` into `Pending`; the stream has registered the task's waker.
fn would_block_to_pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Reads and discards; `Ready` with zero at the end of the stream.
fn poll_discard(stream: &mut AcceptedStream, task: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut scratch = [0; 16 * 1024];
    let mut bytes = ReadBuf::new(&mut scratch);
    Pin::new(stream).poll_read(task, &mut bytes).map_ok(|()| bytes.filled().len())
}

/// Maps an error of the stream to the close reason of its connection.
pub(super) fn reason_of(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(_) => CloseReason::TooBig,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Broken,
        Error::Protocol(_) => CloseReason::Protocol,
        Error::Utf8(_) => CloseReason::InvalidText,
        _ => CloseReason::Broken,
    }
}

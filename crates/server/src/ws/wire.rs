//! What a connection is written to and read from: frames over an upgraded connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::{future::poll_fn, io};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use phalanx_core::config::Websocket;
use phalanx_core::connection::{CloseReason, Frame};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Both buffers keep their high-water mark for the life of a socket, so they start small; a write buffer of zero would
/// write every frame at once.
const READ_BUFFER: usize = 1024;
const WRITE_BUFFER: usize = 8 * 1024;

/// A message beyond this goes out in parts: whole, it would cost its size in the write buffer for ever.
const PART: usize = 16 * 1024;

/// The wire of one connection.
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    /// What is still to be written of a message in parts.
    rest: Bytes,
    /// Set when the connection must not linger in the kernel once the wire is dropped.
    reset: Arc<AtomicBool>,
}

impl Wire {
    pub(super) async fn new(upgraded: Upgraded, settings: &Websocket, reset: Arc<AtomicBool>) -> Self {
        let most = settings.max_frame_bytes.as_u64() as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + 2 * PART)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        Self { socket, rest: Bytes::new(), reset }
    }

    pub(super) fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        Pin::new(&mut self.socket).poll_next(task)
    }

    /// Ready when it may be given a message, all of the one before being with the kernel or in the write buffer.
    pub(super) fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(Pin::new(&mut self.socket).poll_ready(task))?;
            if self.rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let part = self.rest.split_to(PART.min(self.rest.len()));
            self.start_part(part, Data::Continue)?;
        }
    }

    pub(super) fn start_send(&mut self, frame: Frame) -> Result<(), Error> {
        let (mut bytes, kind) = match frame {
            Frame::Text(bytes) => (bytes, Data::Text),
            Frame::Binary(bytes) => (bytes, Data::Binary),
        };
        self.rest = bytes.split_off(PART.min(bytes.len()));
        self.start_part(bytes, kind)
    }

    fn start_part(&mut self, part: Bytes, kind: Data) -> Result<(), Error> {
        let frame = WireFrame::message(part, OpCode::Data(kind), self.rest.is_empty());
        Pin::new(&mut self.socket).start_send(Message::Frame(frame))
    }

    pub(super) fn start_ping(&mut self) -> Result<(), Error> {
        Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new()))
    }

    pub(super) fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    /// Has the connection reset in place of closed once the wire is dropped.
    pub(super) fn reset(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Says why it ends and waits until the client has heard it.
    ///
    /// A connection that is closed while there is input that nobody read breaks off at once, and the client may never
    /// see the close frame. So what still comes is read and dropped: frame by frame until the client's close frame, or
    /// byte by byte to the end where frames cannot be read any more.
    pub(super) async fn say_goodbye(&mut self, reason: CloseReason) -> Result<(), Error> {
        self.rest = Bytes::new();
        let close = CloseFrame { code: reason.code().into(), reason: Utf8Bytes::from_static(reason.as_str()) };
        self.socket.send(Message::Close(Some(close))).await?;
        while let Some(Ok(message)) = self.socket.next().await {
            if message.is_close() {
                return Ok(());
            }
        }
        let connection = self.socket.get_mut();
        connection.shutdown().await?;
        Ok(poll_fn(|task| poll_to_the_end(connection, task)).await?)
    }

    /// Returns the client's close frame.
    pub(super) async fn return_goodbye(&mut self) -> Result<(), Error> {
        self.socket.flush().await
    }
}

fn poll_to_the_end(connection: &mut TokioIo<Upgraded>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut scratch = [0; 1024];
    loop {
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *connection).poll_read(task, &mut bytes))?;
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

//! The commands of all messages that Redis has not answered, as bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::unexpected_reply;
use crate::raw_connection::Writes;

/// The capacity of the command buffer that is kept while the buffer is empty.
const RETAINED_CAPACITY: usize = 64 * 1024;

/// The commands of all pending messages.
#[derive(Default)]
pub(super) struct CommandBuffer {
    pub(super) bytes: BytesMut,
    /// The number of bytes that were written to the connection.
    written: usize,
}

impl CommandBuffer {
    /// Writes and flushes; returns `Pending` when everything is written, and completes only with an error.
    pub(super) fn poll_write(&mut self, writes: &mut Writes, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let rest = &self.bytes[self.written..];
            let written = if rest.is_empty() {
                ready!(Pin::new(&mut *writes).poll_flush(context)).map(|()| 0)
            } else {
                ready!(Pin::new(&mut *writes).poll_write(context, rest))
            };
            match written {
                Ok(0) if rest.is_empty() => return Poll::Pending,
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(error),
            }
        }
    }

    /// Removes the oldest `length` bytes, whose commands were answered.
    pub(super) fn remove(&mut self, length: usize) -> io::Result<()> {
        self.written = self.written.checked_sub(length).ok_or_else(unexpected_reply)?;
        self.bytes.advance(length);
        if self.bytes.is_empty() && self.bytes.capacity() > RETAINED_CAPACITY {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }

    /// Drops all commands; returns how many of their bytes were written.
    pub(super) fn clear(&mut self) -> usize {
        self.bytes = BytesMut::new();
        std::mem::take(&mut self.written)
    }
}

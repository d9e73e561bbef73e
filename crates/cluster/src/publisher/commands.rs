//! The commands of all messages that Redis has not answered, as bytes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::raw_connection::Writes;
use crate::resp::RespError;

/// The capacity of the command buffer that is kept while the buffer is empty.
const RETAINED_CAPACITY: usize = 64 * 1024;

/// The commands of all pending messages.
#[derive(Default)]
pub(super) struct CommandBuffer {
    bytes: BytesMut,
    /// The number of bytes that were written to the connection.
    written: usize,
    /// The oldest first.
    commands: VecDeque<PendingCommand>,
}

/// A call of the script, or the commands of one message.
struct PendingCommand {
    /// The number of its messages.
    messages: usize,
    /// Bytes.
    length: usize,
}

/// How much of a command was written to a connection that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Nothing,
    Part,
    All,
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

    /// Appends a command for so many messages.
    pub(super) fn append(&mut self, messages: usize, write: impl FnOnce(&mut BytesMut)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.commands.push_back(PendingCommand { messages, length: self.bytes.len() - before });
    }

    /// The number of messages of the oldest command.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.commands.front().map(|command| command.messages)
    }

    /// Removes the oldest command, which was answered; refuses if it is not written yet.
    pub(super) fn remove_oldest(&mut self) -> Result<(), RespError> {
        let length = self.commands.front().map_or(0, |command| command.length);
        self.written = self.written.checked_sub(length).ok_or(RespError::Malformed)?;
        self.commands.pop_front();
        self.bytes.advance(length);
        if self.bytes.is_empty() && self.bytes.capacity() > RETAINED_CAPACITY {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }

    /// Drops all commands; returns the number of messages of each, and how much of it was written.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = (usize, Written)> + use<> {
        let Self { commands, written, .. } = std::mem::take(self);
        let mut start = 0;
        commands.into_iter().map(move |PendingCommand { messages, length }| {
            let end = start + length;
            let state = match written {
                written if written >= end => Written::All,
                written if written > start => Written::Part,
                _ => Written::Nothing,
            };
            start = end;
            (messages, state)
        })
    }
}

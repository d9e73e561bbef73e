//! A message that was submitted to Redis and not answered yet, and how the reply to it is read.

use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, Posted, PublicationKind, SendGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::envelope::Draft;
use crate::refusals;
use crate::resp::{RespError, RespItem, RespItems};

/// The action to take when the outcome of a message is known.
pub(super) enum Completion {
    Notify(oneshot::Sender<Result<Posted, BackendError>>),
    DropGuard(#[expect(dead_code, reason = "kept only to be dropped")] SendGuard),
}

impl Completion {
    /// Whether the caller no longer waits.
    pub(super) fn is_cancelled(&self) -> bool {
        match self {
            Self::Notify(caller) => caller.is_closed(),
            Self::DropGuard(_) => false,
        }
    }

    /// Reports the outcome. A caller that no longer waits has already reported it as unknown.
    pub(super) fn complete(self, posted: Result<Posted, BackendError>) {
        if let Self::Notify(caller) = self {
            let _ = caller.send(posted);
        }
    }
}

/// A message that is to be published.
pub(super) struct PublishJob {
    pub(super) channel: String,
    pub(super) content: PublishContent,
    /// The generation that is looked up in the same write.
    pub(super) recipient: Option<Generation>,
    pub(super) completion: Completion,
}

pub(super) enum PublishContent {
    /// An envelope for our nodes.
    Envelope(Draft),
    /// An envelope for our nodes, and in the same script a message for Actionhero nodes: its channel and its text.
    EnvelopeAndInterop(Draft, String, Vec<u8>),
    /// A message for Actionhero nodes.
    Interop(Vec<u8>),
}

impl PublishJob {
    /// Whether it is a message to a room, whose sender receives it over the subscription of this node.
    pub(super) fn is_room_message(&self) -> bool {
        match &self.content {
            PublishContent::Envelope(Draft::Publication(publication)) => publication.kind == PublicationKind::Message,
            PublishContent::EnvelopeAndInterop(..) => true,
            PublishContent::Envelope(Draft::NodeMessage(_)) | PublishContent::Interop(_) => false,
        }
    }

    /// Whether it may be written a second time if it is unknown whether Redis got it the first time. Actionhero nodes
    /// recognise no repeated message.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.is_room_message() && !matches!(self.content, PublishContent::Interop(_))
    }
}

/// A message that Redis has not answered.
pub(super) struct PendingPublish {
    pub(super) job: PublishJob,
    /// The time at which the task took the message off the queue.
    pub(super) accepted_at: Instant,
    /// The generation and the number under which it was sealed.
    pub(super) number: Option<(Generation, u64)>,
    /// The session of the subscriber when its commands were made.
    pub(super) session: u64,
    /// Bytes of its commands.
    pub(super) length: usize,
    /// It was written before, to a connection that broke.
    pub(super) is_repeated: bool,
}

/// The reply to the commands of one message, as far as it was received.
pub(super) enum PublishReply {
    Complete(Result<Posted, BackendError>),
    Incomplete,
    Malformed,
    /// Redis has lost the script since the connection loaded it: none of the messages that need it was published.
    NoScript,
}

/// A number that Redis returned, or the error that it returned instead.
enum Count {
    Number(i64),
    Failed(BackendError),
    NoScript,
}

impl PendingPublish {
    pub(super) fn new(job: PublishJob, accepted_at: Instant) -> Self {
        Self { job, accepted_at, number: None, session: 0, length: 0, is_repeated: false }
    }

    /// Reads the reply. `names_key` is the key that a failed lookup is reported with.
    pub(super) fn read(&self, items: &mut RespItems<'_>, names_key: &str) -> PublishReply {
        match self.read_counts(items, names_key) {
            Ok((Count::NoScript, _)) => PublishReply::NoScript,
            Ok((receivers, on_record)) => PublishReply::Complete(self.posted(receivers, on_record)),
            Err(RespError::Incomplete) => PublishReply::Incomplete,
            Err(RespError::Malformed) => PublishReply::Malformed,
        }
    }

    /// Reads the number of receivers, and how often the recipient is on record.
    fn read_counts(&self, items: &mut RespItems<'_>, names_key: &str) -> Result<(Count, Count), RespError> {
        let receivers = Count::from_item(items.next()?);
        if self.job.recipient.is_none() {
            return Ok((receivers, Count::Number(1)));
        }
        let on_record = match items.next()? {
            RespItem::Error(message) if message.starts_with(b"WRONGTYPE ") => {
                Count::Failed(BackendError::WrongKind { key: names_key.to_owned() })
            }
            item => Count::from_item(item),
        };
        Ok((receivers, on_record))
    }

    fn posted(&self, receivers: Count, on_record: Count) -> Result<Posted, BackendError> {
        let (receivers, on_record) = match (receivers, on_record) {
            (Count::Number(receivers), Count::Number(on_record)) => (receivers, on_record),
            // The message was published.
            (Count::Number(_), Count::Failed(BackendError::Refused(reason))) => {
                return Err(BackendError::Failed(reason));
            }
            (Count::Failed(error), _) | (_, Count::Failed(error)) => return Err(error),
            (Count::NoScript, _) | (_, Count::NoScript) => return Err(BackendError::unavailable("no such script")),
        };
        let posted = Posted { received: receivers > 0, on_record: on_record > 0 };
        if self.is_repeated && self.job.recipient.is_some() && !posted.received && posted.on_record {
            return Err(BackendError::unavailable("it was sent twice, and the first may have been received"));
        }
        Ok(posted)
    }
}

impl Count {
    fn from_item(item: RespItem<'_>) -> Self {
        match item {
            RespItem::Number(number) => Self::Number(number),
            RespItem::Error(message) if message.starts_with(b"NOSCRIPT ") => Self::NoScript,
            RespItem::Error(message) => Self::Failed(refusals::error_of(&String::from_utf8_lossy(message))),
            RespItem::Text(_) | RespItem::Nil | RespItem::List(_) | RespItem::TooLong(_) => {
                Self::Failed(BackendError::unavailable("redis returned something other than a number"))
            }
        }
    }
}

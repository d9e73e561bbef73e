//! A message that was submitted to Redis and not answered yet, and how the reply to it is read.

use phalanx_core::Generation;
use phalanx_core::backend::{
    BackendError, NodeMessage, Posted, Publication, PublicationKind, SendGuard, TagMessage, TagMessageKind,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::refusals;
use crate::resp::{RespError, RespItem, RespItems};

/// About the most bytes of an envelope beside its payload.
const HEADER: usize = 512;

/// The action to take when the outcome of a message is known.
pub(super) enum Completion {
    Notify(oneshot::Sender<Result<Published, BackendError>>),
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
    pub(super) fn complete(self, published: Result<Published, BackendError>) {
        if let Self::Notify(caller) = self {
            let _ = caller.send(published);
        }
    }
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// How many were subscribed to the channel.
    pub(super) receivers: usize,
    /// Whether the recipient is known; also if none was looked up.
    pub(super) on_record: bool,
}

impl From<Published> for Posted {
    fn from(published: Published) -> Self {
        Self { received: published.receivers > 0, on_record: published.on_record }
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
    /// A message to a room, with the same for Actionhero's members of it, if there may be any.
    Publication(Publication, Option<InteropCopy>),
    /// A message to nodes.
    NodeMessage(NodeMessage),
    /// A message to a tag.
    TagMessage(TagMessage),
    /// A message for Actionhero nodes alone.
    Interop(Vec<u8>),
}

/// A message for Actionhero nodes, beside one for ours.
pub(crate) struct InteropCopy {
    pub(crate) channel: String,
    pub(crate) text: Vec<u8>,
}

impl PublishJob {
    /// Whether it takes the subscription of this node: its sender receives a message to a room over that, and the replies to
    /// a call of a tag, of which there are as many as Redis has counted receivers. Written again after a break it would find
    /// fewer, since other nodes lose their subscriptions at the same time.
    pub(super) fn needs_subscription(&self) -> bool {
        match &self.content {
            PublishContent::Publication(message, _) => message.kind == PublicationKind::Message,
            PublishContent::TagMessage(message) => message.kind == TagMessageKind::Call,
            PublishContent::NodeMessage(_) | PublishContent::Interop(_) => false,
        }
    }

    /// Whether it may be written a second time if it is unknown whether Redis got it the first time. Actionhero nodes
    /// recognise no repeated message.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.needs_subscription() && !matches!(self.content, PublishContent::Interop(_))
    }

    /// About how many bytes it adds to a call of the script; `None` if it is not published by the script.
    pub(super) fn size_in_call(&self) -> Option<usize> {
        let content = match &self.content {
            PublishContent::Publication(message, interop) => {
                message.payload.len() + interop.as_ref().map_or(0, |copy| copy.channel.len() + copy.text.len())
            }
            PublishContent::TagMessage(message) => message.payload.len(),
            PublishContent::NodeMessage(_) | PublishContent::Interop(_) => return None,
        };
        Some(self.channel.len() + HEADER + content)
    }

    /// The number of messages that it publishes.
    pub(super) fn count(&self) -> usize {
        1 + usize::from(matches!(self.content, PublishContent::Publication(_, Some(_))))
    }
}

/// A message that Redis has not answered.
pub(super) struct PendingPublish {
    pub(super) job: PublishJob,
    /// The time at which the task took the message off the queue.
    pub(super) accepted_at: Instant,
    /// The generation and the number under which it was sealed.
    pub(super) number: Option<(Generation, u64)>,
    /// The session of the subscriber when its command was made.
    pub(super) session: u64,
    /// How many have received it, by the reply to its call of the script.
    receivers: usize,
    /// It was written before, to a connection that broke.
    pub(super) is_repeated: bool,
}

impl PendingPublish {
    pub(super) fn new(job: PublishJob, accepted_at: Instant) -> Self {
        Self { job, accepted_at, number: None, session: 0, receivers: 0, is_repeated: false }
    }

    /// The outcome of one that was published by the script.
    pub(super) fn published(&self) -> Published {
        Published { receivers: self.receivers, on_record: true }
    }

    /// Reads the reply to the commands of one message that is not published by the script. `names_key` is the key that a
    /// failed lookup is reported with.
    pub(super) fn read(
        &self,
        items: &mut RespItems<'_>,
        names_key: &str,
    ) -> Result<Result<Published, BackendError>, RespError> {
        let receivers = count(items.next()?);
        let on_record = match self.job.recipient {
            None => Ok(1),
            Some(_) => match items.next()? {
                RespItem::Error(message) if message.starts_with(b"WRONGTYPE ") => {
                    Err(BackendError::WrongKind { key: names_key.to_owned() })
                }
                item => count(item),
            },
        };
        Ok(self.outcome(receivers, on_record))
    }

    fn outcome(
        &self,
        receivers: Result<usize, BackendError>,
        on_record: Result<usize, BackendError>,
    ) -> Result<Published, BackendError> {
        let receivers = receivers?;
        let on_record = on_record.map_err(|error| match error {
            BackendError::Refused(reason) => BackendError::Failed(reason), // the message was published
            error => error,
        })?;
        let published = Published { receivers, on_record: on_record > 0 };
        if self.is_repeated && self.job.recipient.is_some() && receivers == 0 && published.on_record {
            return Err(BackendError::unavailable("it was sent twice, and the first may have been received"));
        }
        Ok(published)
    }
}

/// Reads a count, or the error that Redis returned instead.
fn count(item: RespItem<'_>) -> Result<usize, BackendError> {
    match item {
        RespItem::Number(number) => Ok(usize::try_from(number).unwrap_or(0)),
        RespItem::Error(message) => Err(refusals::error_of(&String::from_utf8_lossy(message))),
        RespItem::Text(_) | RespItem::Nil | RespItem::List(_) | RespItem::TooLong(_) => {
            Err(BackendError::unavailable("redis returned something other than a number"))
        }
    }
}

/// Reads the reply to a call of the script with these messages: how many have received each, or Redis's error.
pub(super) fn read_call<'a>(
    items: &mut RespItems<'_>,
    messages: impl Iterator<Item = &'a mut PendingPublish>,
) -> Result<Result<(), String>, RespError> {
    let mut left = match items.next()? {
        RespItem::List(length) => length,
        RespItem::Error(message) => return Ok(Err(String::from_utf8_lossy(message).into_owned())),
        RespItem::Text(_) | RespItem::Number(_) | RespItem::Nil | RespItem::TooLong(_) => {
            return Err(RespError::Malformed);
        }
    };
    for message in messages {
        for number in 0..message.job.count() {
            let RespItem::Number(receivers) = items.next()? else { return Err(RespError::Malformed) };
            // The first are those of our nodes.
            if number == 0 {
                message.receivers = usize::try_from(receivers).unwrap_or(0);
            }
            left = left.checked_sub(1).ok_or(RespError::Malformed)?;
        }
    }
    if left == 0 { Ok(Ok(())) } else { Err(RespError::Malformed) }
}

#[cfg(test)]
mod tests {
    use phalanx_core::backend::TagId;

    use super::*;

    fn messages(interop: [bool; 2]) -> Vec<PendingPublish> {
        let message = |has_interop: bool| {
            let (room, kind) = ("r".into(), PublicationKind::Message);
            let publication = Publication { room, kind, connection: None, payload: "{}".into() };
            let interop = has_interop.then(|| InteropCopy { channel: "i".to_owned(), text: Vec::new() });
            let (content, completion) = (PublishContent::Publication(publication, interop), oneshot::channel().0);
            let completion = Completion::Notify(completion);
            PublishJob { channel: "c".to_owned(), content, recipient: None, completion }
        };
        interop.map(|interop| PendingPublish::new(message(interop), Instant::now())).into()
    }

    #[test]
    fn messages_whose_replies_are_counted_are_not_repeated_and_wait_for_the_subscription() {
        for (kind, is_call) in [(TagMessageKind::Frame, false), (TagMessageKind::Call, true)] {
            let tag = TagId::parse(&"A".repeat(TagId::TEXT)).unwrap();
            let content =
                PublishContent::TagMessage(TagMessage { tag, kind, id: 1, deadline_ms: None, payload: "{}".into() });
            let completion = Completion::Notify(oneshot::channel().0);
            let job = PublishJob { channel: "c".to_owned(), content, recipient: None, completion };
            assert_eq!((job.needs_subscription(), job.is_repeatable()), (is_call, !is_call), "{kind:?}");
        }
    }

    #[test]
    fn each_message_of_a_call_has_its_number_of_receivers() {
        let reply = b"*3\r\n:2\r\n:7\r\n:0\r\n";
        let mut both = messages([true, false]);
        assert_eq!(read_call(&mut RespItems::new(reply, 64), both.iter_mut()), Ok(Ok(())));
        assert_eq!(both.iter().map(|message| message.published().receivers).collect::<Vec<_>>(), [2, 0]);
        for cut in 0..reply.len() {
            let incomplete = read_call(&mut RespItems::new(&reply[..cut], 64), both.iter_mut());
            assert_eq!(incomplete, Err(RespError::Incomplete), "cut after {cut}");
        }
    }

    #[test]
    fn a_reply_of_other_messages_is_malformed_and_an_error_is_one_of_all() {
        for reply in
            ["*2\r\n:1\r\n:1\r\n:1\r\n", "*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n", ":3\r\n", "*3\r\n:1\r\n+OK\r\n:1\r\n"]
        {
            let read = read_call(&mut RespItems::new(reply.as_bytes(), 64), messages([false, true]).iter_mut());
            assert_eq!(read, Err(RespError::Malformed), "{reply}");
        }
        let read = read_call(&mut RespItems::new(b"-READONLY no\r\n", 64), messages([false, true]).iter_mut());
        assert_eq!(read, Ok(Err("READONLY no".to_owned())));
    }
}

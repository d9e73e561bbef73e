//! What is written and has no answer, and how its answer is read.

use phalanx_core::backend::{BackendError, KeptAlive, Posted};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::resp::{Item, Items, Stop};

/// What is to be done when it is known what became of a message.
pub(super) enum Done {
    Tell(oneshot::Sender<Result<Posted, BackendError>>),
    Drop(#[expect(dead_code, reason = "held for its end")] KeptAlive),
}

impl Done {
    pub(super) fn is_given_up(&self) -> bool {
        match self {
            Self::Tell(waiting) => waiting.is_closed(),
            Self::Drop(_) => false,
        }
    }

    /// Who no longer waits was told that it is unknown.
    pub(super) fn with(self, posted: Result<Posted, BackendError>) {
        if let Self::Tell(waiting) = self {
            let _ = waiting.send(posted);
        }
    }
}

/// A message that Redis has not answered.
pub(super) struct Pending {
    pub(super) done: Done,
    pub(super) taken: Instant,
    /// Bytes of its commands.
    pub(super) length: usize,
    /// It is said to foreign nodes in the same transaction.
    pub(super) is_both: bool,
    /// The name of its recipient is looked up beside it.
    pub(super) asks: bool,
    /// It was written before, to a connection that broke.
    pub(super) repeated: bool,
}

impl Pending {
    /// Reads the answer to its commands.
    pub(super) fn read(&self, items: &mut Items<'_>, names: &str) -> Result<Result<Posted, BackendError>, Stop> {
        let receivers = match self.is_both {
            true => receivers_of_both(items)?,
            false => number(items.next()?),
        };
        let known = match self.asks.then(|| items.next()).transpose()? {
            None => Ok(1),
            Some(Item::Refused(words)) if words.starts_with(b"WRONGTYPE ") => {
                Err(BackendError::WrongKind { key: names.to_owned() })
            }
            Some(item) => number(item),
        };
        let posted = receivers.and_then(|receivers| Ok(Posted { received: receivers > 0, on_record: known? > 0 }));
        Ok(match posted {
            Ok(Posted { received: false, on_record: true }) if self.repeated && self.asks => {
                Err(BackendError::unavailable("it was sent twice, and whether the first was heard is unknown"))
            }
            posted => posted,
        })
    }
}

/// Reads the answers to MULTI, to what it holds, and to EXEC.
fn receivers_of_both(items: &mut Items<'_>) -> Result<Result<i64, BackendError>, Stop> {
    let mut refused = None;
    for _ in 0..3 {
        if let Item::Refused(words) = items.next()? {
            refused.get_or_insert(words);
        }
    }
    let receivers = match items.next()? {
        Item::List(count) => {
            let mut receivers = Ok(0);
            for place in 0..count {
                let one = number(items.next()?);
                if place == 0 || one.is_err() {
                    receivers = one;
                }
            }
            receivers
        }
        other => number(other),
    };
    Ok(refused.map_or(receivers, |words| Err(fault(words))))
}

fn number(item: Item<'_>) -> Result<i64, BackendError> {
    match item {
        Item::Number(number) => Ok(number),
        Item::Refused(words) => Err(fault(words)),
        Item::Text(_) | Item::Nil | Item::List(_) | Item::TooLong(_) => {
            Err(BackendError::unavailable("redis answered something else than a number"))
        }
    }
}

fn fault(words: &[u8]) -> BackendError {
    BackendError::unavailable(String::from_utf8_lossy(words))
}

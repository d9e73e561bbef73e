//! The seam for batches: jobs that are counted together, and a job that is enqueued once all of them have ended.
//!
//! A batch is open until it is sealed, so it never ends before its last member is stored. A member counts once, by the
//! settlement, the reap or the deletion that ends it, and in the same step: the last one enqueues the completion. Each member has
//! a number, which the store appends to the batch's id at the end of the job's text. So whether it has counted is one bit.

use std::sync::Arc;

use bytes::Bytes;

use super::tasks::NewJob;

/// The most members of a batch.
pub const MAX_BATCH: u64 = 1_000_000;

/// For how long a batch is kept after its end: a week, in milliseconds.
pub const BATCH_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The last bytes of a member's text, after the name of its batch.
const TEXT_END: &[u8] = b"\"}";

/// A batch that is to be stored, open.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Its id.
    pub id: Arc<str>,
    /// When it ends although members are left, Unix time in milliseconds.
    pub deadline_ms: u64,
    /// The job that its end enqueues, without a claim and a digest.
    pub completion: Option<NewJob>,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStage {
    /// It takes members.
    Open,
    /// It has all its members, and some have not ended.
    Sealed,
    /// All have ended.
    Finished,
    /// Its deadline has passed before.
    Expired,
}

impl BatchStage {
    /// Its name: `open`, `sealed`, `finished`, `expired`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Finished => "finished",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing about it changes any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Expired)
    }
}

/// A batch as its store knows it. Once it is over, the numbers stay as they were then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// How far it is.
    pub stage: BatchStage,
    /// How many members it has.
    pub total: u64,
    /// How many succeeded.
    pub done: u64,
    /// How many failed for good.
    pub failed: u64,
    /// How many are over without either: deleted, discarded, or too late to begin.
    pub deleted: u64,
    /// The job that its end enqueues.
    pub completion: Option<Arc<str>>,
}

/// The reason for which a batch takes no members, or is not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchRefusal {
    /// There is none of that id, or it ended more than a week ago.
    Unknown,
    /// It was sealed before.
    Sealed,
    /// Its deadline has passed.
    Expired,
    /// It would have more than [`MAX_BATCH`] members.
    TooLarge,
}

/// The outcome of sealing a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealOutcome {
    /// It has all its members; it is over if all of them have ended.
    Sealed(StoredBatch),
    /// Nothing has changed.
    Refused(BatchRefusal),
}

/// The name of a member, as the end of its text has it: `<batch>#<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberName<'a> {
    /// The id of the batch.
    pub batch: &'a str,
    /// Counts the members of the batch, from 0.
    pub number: u64,
}

impl<'a> MemberName<'a> {
    /// Reads a name; `None` if it is of another form.
    pub fn read(name: &'a str) -> Option<Self> {
        let (batch, number) = name.rsplit_once('#')?;
        Some(Self { batch, number: number.parse().ok()? })
    }

    /// The text of a member with its number: it ends with `"batch":"<id>"}` before.
    pub fn number_text(text: &[u8], number: u64) -> Bytes {
        let start = text.strip_suffix(TEXT_END).unwrap_or(text);
        [start, format!("#{number}").as_bytes(), TEXT_END].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobText;

    #[test]
    fn the_number_of_a_member_is_read_as_it_was_appended() {
        for batch in ["b", "with#mark", "orders:7"] {
            let text = JobText { class: "c".into(), batch: Some(batch.into()), ..JobText::default() }.write();
            let numbered = MemberName::number_text(&text, 999_999);
            let name = JobText::read(&numbered).unwrap().batch.unwrap();
            assert_eq!(MemberName::read(&name), Some(MemberName { batch, number: 999_999 }));
        }
        for wrong in ["", "b", "b#", "b#-1", "b#x"] {
            assert_eq!(MemberName::read(wrong), None, "{wrong}");
        }
    }
}

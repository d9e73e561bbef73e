//! Checks a history against the promises of rooms. It knows nothing but the history.
//!
//! Between the last frame of a room before a `gap` and the first after it messages may be missing, presence included;
//! nowhere else. All that a member receives is in the order of the room, also on both sides of a gap.

use std::fmt;
use std::time::Duration;

use super::history::{Event, Record};

mod delivery;
mod lists;
mod members;
mod order;
mod streams;

use streams::History;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Two members disagree about an order, or one received a message twice or behind a later one.
    Order,
    /// A message that was answered OK is missing between two frames of a member, and no gap is there.
    Hole,
    /// A message that was not answered OK was received by some members, and not by another that had no gap.
    Partial,
    /// A message that was answered OK is missing behind the last frame of a member, and no gap is there.
    Tail,
    /// A `say` was OK, and its speaker has neither the message nor a later gap; or messages are missing without a word
    /// for longer than a node may keep silent; or no gap followed an `away`.
    Silent,
    /// A node lists a member that is none, or one as it was before.
    Ghost,
    /// A node does not list a member.
    Missing,
    /// The joins and leaves that a member received are not those that happened.
    Unbalanced,
    /// After the calm a `say` is not OK, or a member receives nothing, or a node does not answer.
    Mute,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Order,
        Self::Hole,
        Self::Partial,
        Self::Tail,
        Self::Silent,
        Self::Ghost,
        Self::Missing,
        Self::Unbalanced,
        Self::Mute,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Hole => "hole",
            Self::Partial => "partial",
            Self::Tail => "tail",
            Self::Silent => "silent",
            Self::Ghost => "ghost",
            Self::Missing => "missing",
            Self::Unbalanced => "unbalanced",
            Self::Mute => "mute",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Microseconds since the start, near which it happened.
    pub(crate) at: u64,
    pub(crate) room: String,
    pub(crate) detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, at, room, detail } = self;
        write!(out, "{} in {room} at {:.3} s: {detail}", kind.name(), *at as f64 / 1e6)
    }
}

/// Numbers of a history, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    said: usize,
    ok: usize,
    unavailable: usize,
    refused: usize,
    received: usize,
    gaps: usize,
    aways: usize,
    sockets: usize,
}

impl Counts {
    fn of(records: &[Record]) -> Self {
        let mut counts = Self::default();
        for record in records {
            match &record.event {
                Event::Say { .. } => counts.said += 1,
                Event::Answered { code: None, .. } => counts.ok += 1,
                Event::Answered { code: Some(code), .. } if code == "unavailable" => counts.unavailable += 1,
                Event::Answered { .. } => counts.refused += 1,
                Event::Received { .. } => counts.received += 1,
                Event::Gap { .. } => counts.gaps += 1,
                Event::Away { .. } => counts.aways += 1,
                Event::Open { .. } => counts.sockets += 1,
                _ => {}
            }
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { said, ok, unavailable, refused, received, gaps, aways, sockets } = self;
        write!(out, "{said} messages, {received} received by {sockets} sockets | says OK {ok}, ")?;
        write!(out, "unavailable {unavailable}, refused {refused} | gaps {gaps}, aways {aways}")
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    pub(crate) faults: Vec<Fault>,
}

impl Report {
    pub(crate) fn faults_of(&self, kind: Kind) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| fault.kind == kind)
    }

    /// The number of faults by kind, also of those that were not found.
    pub(crate) fn summary_of_all(&self) -> String {
        format!(
            "found: {}",
            Kind::ALL.map(|kind| format!("{} {}", kind.name(), self.faults_of(kind).count())).join(", ")
        )
    }

    /// The number of faults by kind that happened in a time since the start.
    pub(crate) fn summary_of(&self, from: Duration, to: Duration) -> String {
        let is_in = |fault: &&Fault| (from..to).contains(&Duration::from_micros(fault.at));
        let count = |kind: Kind| (kind, self.faults_of(kind).filter(is_in).count());
        let counts = Kind::ALL.map(count).into_iter().filter(|(_, count)| *count > 0);
        counts.map(|(kind, count)| format!("{} {count}", kind.name())).collect::<Vec<_>>().join(", ")
    }
}

/// Checks a history.
pub(crate) fn check(records: &[Record]) -> Report {
    let history = History::of(records);
    let mut faults = Vec::new();
    for room in &history.rooms {
        order::check(&history, room, &mut faults);
        delivery::check(&history, room, &mut faults);
        members::check(&history, room, &mut faults);
        lists::check(&history, room, &mut faults);
    }
    delivery::check_answers(&history, &mut faults);
    Report { counts: Counts::of(records), faults }
}

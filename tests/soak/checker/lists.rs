//! The lists of members that nodes gave during the soak: one who is not listed any more comes back only by a new join, and
//! the time at which a member joined does not go back.
//!
//! Both are promised while a node may open connections to a Redis that keeps its data: then a join that was given up is
//! undone at once, and refused if it arrives later. While Redis or the whole network of a node is away, the undo is too.

use std::collections::BTreeMap;

use super::streams::{History, JoinAttempt, RoomHistory};
use super::{Fault, Kind};

/// Kinds of faults that break neither.
const HARMLESS: [&str; 7] = ["delay", "hold", "answers", "late_says", "late_joins", "kill", "roll"];

/// For this long after another fault a list may be wrong.
const RECOVERY: u64 = 10_000_000;

/// A list is read by a node at most this long before it is asked for.
const SHARED: u64 = 300_000;

/// For this long after its client has gone a node may still run a join.
const RUNNING: u64 = 3_000_000;

/// What earlier lists say of one connection.
#[derive(Default)]
struct Known {
    /// The latest time at which a list was asked for that it is missing in, since it was listed first.
    missing: Option<u64>,
    /// The latest time of joining, when it was listed, and when that list was asked for.
    joined: Option<(u64, u64)>,
}

pub(super) fn check(history: &History, room: &RoomHistory, faults: &mut Vec<Fault>) {
    let attempts: BTreeMap<&str, &[JoinAttempt]> = room
        .streams
        .iter()
        .filter_map(|(socket, stream)| Some((&*history.sockets.get(socket)?.id, &*stream.attempts)))
        .collect();
    let mut known: BTreeMap<&str, Known> = attempts.keys().map(|id| (*id, Known::default())).collect();
    for watched in &room.watched {
        for (id, known) in &mut known {
            let joined_at = watched.members.get(*id).copied();
            let mut fault = |detail: String| {
                let detail = format!("n{} lists {id}, {detail}", watched.node);
                faults.push(Fault { kind: Kind::Ghost, at: watched.at, room: room.name.clone(), detail });
            };
            let Some(joined_at) = joined_at else {
                known.missing = known.missing.max(Some(watched.asked));
                continue;
            };
            if let Some((latest, at)) = known.joined
                && joined_at < latest
                && at < watched.asked.saturating_sub(SHARED)
                && history.keeps_lists(at, watched.at)
            {
                fault(format!("joined {} ms before the time that was listed", latest - joined_at));
                known.joined = None; // one fault is one report
            }
            if let Some(missing) = known.missing.take()
                && missing < watched.asked
                && !may_run(attempts[id], missing.saturating_sub(SHARED), watched.at)
                && history.keeps_lists(missing, watched.at)
            {
                fault(format!("missing at {:.3} s, and no join was sent since", missing as f64 / 1e6));
            }
            if known.joined.is_none_or(|(latest, _)| latest <= joined_at) {
                known.joined = Some((joined_at, watched.at));
            }
        }
    }
}

/// Whether a join of the connection may take effect between two times.
fn may_run(attempts: &[JoinAttempt], from: u64, to: u64) -> bool {
    attempts.iter().any(|attempt| attempt.sent <= to && attempt.ended.is_none_or(|ended| ended >= from))
}

impl History {
    /// Whether lists are right from one time to another.
    fn keeps_lists(&self, from: u64, to: u64) -> bool {
        let from = from.saturating_sub(RECOVERY);
        let is_harmful = |kind: &str| !HARMLESS.contains(&kind);
        !self.faults.iter().any(|fault| fault.from <= to && fault.to >= from && is_harmful(&fault.kind))
    }
}

impl JoinAttempt {
    /// The client of an attempt without an answer has gone.
    pub(super) fn end_with_socket(&mut self, at: u64) {
        self.ended.get_or_insert(at + RUNNING);
    }
}

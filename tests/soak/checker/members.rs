//! The lists of members after the calm, and the joins and leaves that members received.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::Change;
use super::streams::{Frame, History, Injected, JoinAttempt, RoomHistory, Stream};
use super::{Fault, Kind};

pub(super) fn check(history: &History, room: &RoomHistory, faults: &mut Vec<Fault>) {
    check_lists(history, room, faults);
    if !room.has_presence {
        return;
    }
    for (socket, stream) in &room.streams {
        let Some(observer) = history.sockets.get(socket) else { continue };
        let mut fault = |at: u64, member: &str, detail: String| {
            if member != observer.id {
                let detail = format!("socket {socket} of {} {detail} {member}", history.node(*socket));
                faults.push(Fault { kind: Kind::Unbalanced, at, room: room.name.clone(), detail });
            }
        };
        let known = check_alternation(history, room, stream, &mut fault);
        if stream.is_member() {
            check_outcome(history, room, stream, &known, &mut fault);
        }
    }
}

fn check_lists(history: &History, room: &RoomHistory, faults: &mut Vec<Fault>) {
    for listed in &room.listed {
        let mut fault = |kind: Kind, detail: String| {
            let detail = format!("n{} {detail}", listed.node);
            faults.push(Fault { kind, at: listed.at, room: room.name.clone(), detail });
        };
        let Some(ids) = &listed.members else {
            fault(Kind::Mute, "does not list the members".to_owned());
            continue;
        };
        let ids: BTreeSet<&str> = ids.iter().map(|id| &**id).collect();
        let members = room.streams.iter().filter(|(_, stream)| stream.was_member(listed.at));
        let members: BTreeMap<&str, usize> =
            members.filter_map(|(socket, _)| Some((&*history.sockets.get(socket)?.id, *socket))).collect();
        for id in ids.iter().filter(|id| !members.contains_key(*id)) {
            fault(Kind::Ghost, format!("lists {id}, which is no member"));
        }
        for (id, socket) in members.iter().filter(|(id, _)| !ids.contains(*id)) {
            fault(Kind::Missing, format!("does not list {id}, socket {socket} of {}", history.node(*socket)));
        }
        if listed.count != ids.len() as u64 {
            let kind = if listed.count > ids.len() as u64 { Kind::Ghost } else { Kind::Missing };
            fault(kind, format!("counts {} members and lists {}", listed.count, ids.len()));
        }
    }
}

/// Joins and leaves of one member alternate between two gaps. Returns the last change of each since the last gap, and
/// from when on none may be missing.
fn check_alternation(
    history: &History,
    room: &RoomHistory,
    stream: &Stream,
    fault: &mut impl FnMut(u64, &str, String),
) -> Known {
    let mut known = Known { changes: BTreeMap::new(), since: None };
    for item in &stream.items {
        if item.is_after_break {
            known = Known { changes: BTreeMap::new(), since: Some(item.at) };
        }
        if let Frame::Presence(change, member) = &item.frame
            && known.changes.insert(member.clone(), *change) == Some(*change)
            && !(*change == Change::Leave && was_killed_joining(history, room, member))
        {
            fault(item.at, member, format!("received {} twice in a row of", name(*change)));
        }
    }
    if stream.ends_broken {
        known.since = None;
    }
    known
}

/// Whether the node of a connection was killed before it answered a join: Redis may have the member, whose leave the reaper
/// tells, although the join was told to nobody.
fn was_killed_joining(history: &History, room: &RoomHistory, id: &str) -> bool {
    let Some((socket, stream)) = room.streams.iter().find_map(|(number, stream)| {
        history.sockets.get(number).filter(|socket| socket.id == id).map(|socket| (socket, stream))
    }) else {
        return false;
    };
    let is_kill = |fault: &&Injected| fault.kind == "kill" && fault.node == Some(socket.node);
    let is_cut = |attempt: &JoinAttempt| {
        let ended = attempt.ended.unwrap_or(u64::MAX);
        history.faults.iter().filter(is_kill).any(|kill| (attempt.sent..ended).contains(&kill.from))
    };
    stream.attempts.last().is_some_and(is_cut)
}

struct Known {
    changes: BTreeMap<String, Change>,
    since: Option<u64>,
}

/// After the calm, the last change that was received of each connection is the last that happened.
fn check_outcome(
    history: &History,
    room: &RoomHistory,
    stream: &Stream,
    known: &Known,
    fault: &mut impl FnMut(u64, &str, String),
) {
    let Some(since) = known.since else { return };
    // A node that was cut off was reaped: the leaves of its members came before their clients went.
    let has_left = |id: &str| announced(room, id).is_some_and(|(at, change)| change == Change::Leave && at < since);
    for (socket, other) in &room.streams {
        let Some(socket) = history.sockets.get(socket) else { continue };
        let truth = if other.is_member() { Change::Join } else { Change::Leave };
        let last = other.changes.last().map_or(0, |last| last.requested);
        match known.changes.get(&socket.id) {
            Some(change) if *change != truth => {
                fault(last, &socket.id, format!("received {} last, not {}, of", name(*change), name(truth)));
            }
            // What happened before the last gap may have been missed with it.
            None if last > since && !std::ptr::eq(stream, other) && !has_left(&socket.id) => {
                fault(last, &socket.id, format!("never received {} of", name(truth)));
            }
            Some(_) | None => {}
        }
    }
}

/// The last change of a connection that any member received.
fn announced(room: &RoomHistory, id: &str) -> Option<(u64, Change)> {
    let items = room.streams.values().flat_map(|stream| &stream.items);
    let changes = items.filter_map(|item| match &item.frame {
        Frame::Presence(change, member) if member == id => Some((item.at, *change)),
        Frame::Presence(..) | Frame::Message(_) | Frame::Joined => None,
    });
    changes.max_by_key(|(at, _)| *at)
}

fn name(change: Change) -> &'static str {
    match change {
        Change::Join => "join",
        Change::Leave => "leave",
    }
}

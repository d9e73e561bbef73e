//! One order for all members of a room.

use super::streams::{History, RoomHistory};
use super::{Fault, Kind};

pub(super) fn check(history: &History, room: &RoomHistory, faults: &mut Vec<Fault>) {
    let mut fault = |at: u64, detail: String| {
        faults.push(Fault { kind: Kind::Order, at, room: room.name.clone(), detail });
    };
    let mut orders = Vec::new();
    for (&socket, stream) in &room.streams {
        let mut positions = vec![None; room.messages.len()];
        let mut order = Vec::new();
        let mut latest = 0;
        for (index, number) in stream.messages() {
            let (message, at) = (&room.messages[number], stream.items[index].at);
            if positions[number].is_some() {
                fault(at, format!("socket {socket} received {} twice", message.text));
                continue;
            }
            // One that was sent after another was answered OK comes behind it.
            if let Some(ok) = message.ok()
                && ok < room.messages[latest].sent
                && !order.is_empty()
            {
                let later = &room.messages[latest].text;
                fault(at, format!("socket {socket} received {} behind {later}, sent after its OK", message.text));
            }
            if order.is_empty() || message.sent > room.messages[latest].sent {
                latest = number;
            }
            positions[number] = Some(order.len());
            order.push((number, at));
        }
        orders.push((socket, positions, order));
    }
    for (later, (one, _, order)) in orders.iter().enumerate() {
        for (other, positions, _) in &orders[..later] {
            let common = order.iter().filter_map(|&(number, at)| Some((number, at, positions[number]?)));
            let mut previous: Option<(usize, usize)> = None;
            let mut inversions = Vec::new();
            for (number, at, position) in common {
                if let Some((before, place)) = previous
                    && position < place
                {
                    inversions.push((at, before, number));
                }
                previous = Some((number, position));
            }
            if let Some(&(at, before, number)) = inversions.first() {
                let [before, number] = [before, number].map(|number| &room.messages[number].text);
                let (one_at, other_at) = (history.node(*one), history.node(*other));
                fault(
                    at,
                    format!(
                        "socket {one} of {one_at} received {before} before {number}, socket {other} of {other_at} \
                         after it; {} such places",
                        inversions.len()
                    ),
                );
            }
        }
    }
    check_speakers(room, &mut fault);
}

/// The messages of one speaker are in the order in which they were sent.
fn check_speakers(room: &RoomHistory, fault: &mut impl FnMut(u64, String)) {
    for (socket, stream) in &room.streams {
        let mut latest = std::collections::HashMap::new();
        for (index, number) in stream.messages() {
            let speaker = room.messages[number].socket;
            let before = latest.insert(speaker, number).unwrap_or(0);
            if number < before {
                let [early, late] = [number, before].map(|number| &room.messages[number].text);
                fault(stream.items[index].at, format!("socket {socket} received {early} behind {late} of one speaker"));
            }
        }
    }
}

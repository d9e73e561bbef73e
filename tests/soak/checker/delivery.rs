//! Messages that are missing where no gap explains it.

use super::streams::{Break, Frame, History, Message, RoomHistory, Stream};
use super::{Fault, Kind};

/// A node that receives nothing finds it out within 4 s and tells its sockets 3 s later; a loaded machine takes longer.
const SILENCE: u64 = 12_000_000;

pub(super) fn check(history: &History, room: &RoomHistory, faults: &mut Vec<Fault>) {
    let streams: Vec<(usize, Indexed<'_>)> =
        room.streams.iter().map(|(socket, stream)| (*socket, Indexed::of(stream, room))).collect();
    let was_received: Vec<bool> = (0..room.messages.len())
        .map(|number| streams.iter().any(|(_, stream)| stream.places[number].is_some()))
        .collect();
    for (socket, stream) in &streams {
        let bounds = Bounds::of(stream, &streams, room);
        let mut silence: Option<(u64, u64, usize)> = None;
        for (number, message) in room.messages.iter().enumerate() {
            let is_sure = message.ok().is_some() || was_received[number];
            if stream.places[number].is_some() || !is_sure {
                continue;
            }
            let (after, before) = bounds.places(number);
            if after >= before as isize {
                continue; // members disagree about its place, which is a fault of order
            }
            let is_own = message.socket == *socket;
            let is_explained = stream.has_break(after, before);
            let is_unheard = is_own && is_unheard(stream.stream, message);
            if !is_explained || is_unheard {
                let kind = kind(message, is_own, before == stream.stream.items.len());
                let detail = format!(
                    "socket {socket} of {} lacks {} of socket {}, sent at {:.3} s and answered {}",
                    history.node(*socket),
                    message.text,
                    message.socket,
                    message.sent as f64 / 1e6,
                    message.answered(),
                );
                faults.push(Fault { kind, at: message.sent, room: room.name.clone(), detail });
            } else if let Some((from, to)) = silence_of(history, *socket, stream.stream, (message, after, before))
                && silence.is_none_or(|(known_from, known_to, _)| known_to - known_from < to - from)
            {
                silence = Some((from, to, number));
            }
        }
        if let Some((from, to, number)) = silence {
            let detail = format!(
                "socket {socket} of {} lacks {}, OK at {:.3} s, and was told {:.1} s later",
                history.node(*socket),
                room.messages[number].text,
                from as f64 / 1e6,
                (to - from) as f64 / 1e6
            );
            faults.push(Fault { kind: Kind::Silent, at: from, room: room.name.clone(), detail });
        }
        check_away(history, room, *socket, stream.stream, faults);
    }
}

/// Whether a message is OK that its speaker lacks, and no gap came after the answer. One who leaves asks for no more.
fn is_unheard(stream: &Stream, message: &Message) -> bool {
    let explains = |ok: u64| move |it: &Break| it.at > if it.is_gap { ok } else { message.sent };
    message.ok().is_some_and(|ok| !stream.breaks.iter().any(explains(ok)))
}

fn kind(message: &Message, is_own: bool, is_at_end: bool) -> Kind {
    if message.last {
        return Kind::Mute;
    }
    match (message.ok(), is_own, is_at_end) {
        (None, ..) => Kind::Partial,
        (Some(_), true, _) => Kind::Silent,
        (Some(_), false, true) => Kind::Tail,
        (Some(_), false, false) => Kind::Hole,
    }
}

impl Message {
    fn answered(&self) -> &str {
        self.answer.as_ref().map_or("not at all", |answer| answer.code.as_deref().unwrap_or("OK"))
    }
}

impl History {
    /// The name of a socket's node.
    pub(super) fn node(&self, socket: usize) -> String {
        self.sockets.get(&socket).map_or_else(|| "an unknown node".to_owned(), |socket| format!("n{}", socket.node))
    }
}

/// The time from the OK of a missed message, which stands between two items of a stream, until its member was told, if
/// that is too long.
fn silence_of(
    history: &History,
    socket: usize,
    stream: &Stream,
    (message, after, before): (&Message, isize, usize),
) -> Option<(u64, u64)> {
    let (from, known) = (message.ok()?, history.sockets.get(&socket)?);
    let begin = usize::try_from(after).map_or(0, |after| stream.items[after].at);
    let end = stream.items.get(before).map_or(u64::MAX, |item| item.at);
    let mut told: Vec<u64> = stream.breaks.iter().map(|it| it.at).collect();
    // One `away` stands for all that is missed until the gap.
    told.extend(&known.aways);
    told.retain(|at| (begin..=end).contains(at));
    let told = told.into_iter().min()?;
    let to = told.saturating_sub(history.frozen(known.node, from, told));
    // One who has left, or asked to, is told nothing of what comes after.
    let was_member = [message.sent, from].iter().all(|at| stream.was_member(*at));
    (was_member && to > from + SILENCE).then_some((from, to))
}

/// A gap follows in each room when the node is back; not in one whose join was still under way.
fn check_away(history: &History, room: &RoomHistory, socket: usize, stream: &Stream, faults: &mut Vec<Fault>) {
    let Some(known) = history.sockets.get(&socket) else { return };
    let unanswered =
        known.aways.iter().find(|away| stream.had_joined(**away) && !stream.breaks.iter().any(|it| it.at > **away));
    if let Some(away) = unanswered {
        let detail = format!("socket {socket} of {} was told `away`, and no gap followed", history.node(socket));
        faults.push(Fault { kind: Kind::Silent, at: *away, room: room.name.clone(), detail });
    }
}

/// A stream, and where each message stands in it.
struct Indexed<'a> {
    stream: &'a Stream,
    places: Vec<Option<usize>>,
}

impl<'a> Indexed<'a> {
    fn of(stream: &'a Stream, room: &RoomHistory) -> Self {
        let mut places = vec![None; room.messages.len()];
        for (index, number) in stream.messages() {
            places[number].get_or_insert(index);
        }
        Self { stream, places }
    }

    /// Whether frames may be missing between two items: behind the one, `-1` for the start, and before the other.
    fn has_break(&self, after: isize, before: usize) -> bool {
        let items = &self.stream.items;
        let first = (after + 1) as usize;
        (first..=before).any(|place| items.get(place).map_or(self.stream.ends_broken, |item| item.is_after_break))
    }
}

/// Between which items of a stream each message would stand that the stream lacks.
struct Bounds {
    after: Vec<isize>,
    before: Vec<usize>,
}

impl Bounds {
    fn of(own: &Indexed<'_>, all: &[(usize, Indexed<'_>)], room: &RoomHistory) -> Self {
        let mut bounds = Self::by_time(own.stream, room);
        for (_, other) in all {
            let order: Vec<usize> = other.stream.messages().map(|(_, number)| number).collect();
            let mut last = -1;
            for &number in &order {
                match own.places[number] {
                    Some(place) => last = last.max(place as isize),
                    None => bounds.after[number] = bounds.after[number].max(last),
                }
            }
            let mut next = own.stream.items.len();
            for &number in order.iter().rev() {
                match own.places[number] {
                    Some(place) => next = next.min(place),
                    None => bounds.before[number] = bounds.before[number].min(next),
                }
            }
        }
        bounds
    }

    /// The bounds that times give: a message stands behind all that was received, or answered OK, before it was sent,
    /// and before all that was sent after it was answered OK.
    fn by_time(stream: &Stream, room: &RoomHistory) -> Self {
        let items = &stream.items;
        let message = |index: usize| match items[index].frame {
            Frame::Message(number) => Some(&room.messages[number]),
            Frame::Presence(..) | Frame::Joined => None,
        };
        // The earliest OK of an item and all behind it, and the latest sending of an item and all before it.
        let mut ok = vec![u64::MAX; items.len()];
        let mut sent = vec![0; items.len()];
        for index in (0..items.len()).rev() {
            let own = message(index).and_then(Message::ok).unwrap_or(u64::MAX);
            ok[index] = own.min(ok.get(index + 1).copied().unwrap_or(u64::MAX));
        }
        for index in 0..items.len() {
            let own = message(index).map_or(0, |message| message.sent);
            sent[index] = own.max(index.checked_sub(1).map_or(0, |before| sent[before]));
        }
        let mut bounds = Self { after: Vec::new(), before: Vec::new() };
        for message in &room.messages {
            let received = items.partition_point(|item| item.at < message.sent);
            let answered = ok.partition_point(|ok| *ok < message.sent);
            bounds.after.push(received.max(answered) as isize - 1);
            bounds.before.push(message.ok().map_or(items.len(), |ok| sent.partition_point(|sent| *sent <= ok)));
        }
        bounds
    }

    fn places(&self, number: usize) -> (isize, usize) {
        (self.after[number], self.before[number])
    }
}

/// After the calm each `say` is OK, and no `say` before it lacks an answer.
pub(super) fn check_answers(history: &History, faults: &mut Vec<Fault>) {
    for room in &history.rooms {
        for message in &room.messages {
            let is_open = history.sockets.get(&message.socket).is_some_and(|socket| socket.closed.is_none());
            let is_mute = match &message.answer {
                None => is_open,
                Some(answer) => message.last && answer.code.is_some(),
            };
            if is_mute {
                let node = history.node(message.socket);
                let detail = format!(
                    "{} of socket {} of {node} is answered {}",
                    message.text,
                    message.socket,
                    message.answered()
                );
                faults.push(Fault { kind: Kind::Mute, at: message.sent, room: room.name.clone(), detail });
            }
        }
    }
}

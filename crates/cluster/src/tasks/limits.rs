//! Limits of queues in the cluster: what a script learns of them, and what it says.

use std::time::Duration;

use phalanx_core::backend::{HeldUpQueue, LimitedQueue, Settlement, WorkerCall};

use super::call::{PLACER, ReplyItems};
use super::exchange::{constant, is_plain, quote};
use crate::keys::Keys;

/// For how long the count of a queue is kept that no node counts any more, because no task names it: a node whose slots are all taken
/// says nothing for as long as its jobs run.
pub(super) const HELD_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The part of a script that holds limits, where `text` has nothing from its byte `at` on, counted from 1, if a call names none.
pub(super) fn fragment(text: &str, at: usize) -> String {
    let numbers = [("rules_at", at as u64), ("HELD_TTL_MS", HELD_TTL_MS)];
    let numbers: String = numbers.iter().map(|(name, number)| constant(name, &number.to_string())).collect();
    [&constant("rules_text", text), &*numbers, include_str!("../lua/tasks/limits.lua")].concat()
}

/// The script that fetches parked jobs.
pub(super) fn take_parked(keys: &Keys, channel: &str) -> String {
    let texts = [
        ("RUNNING_OF", keys.running_of()),
        ("QUEUES", keys.queues()),
        ("READY", keys.ready()),
        ("AGAIN", keys.again()),
        ("SUSPECTS", keys.suspects()),
        ("HELD", keys.held()),
        ("RATES", keys.rates()),
        ("FAIR", keys.fair()),
        ("CHANNEL", channel.to_owned()),
    ];
    let constants: String = texts.iter().map(|(name, text)| constant(name, &quote(text))).collect();
    [&constants, &*fragment("ARGV[9]", 1), PLACER, include_str!("../lua/tasks/take_parked.lua")].concat()
}

/// Plain successes, those of each queue with limits behind all others: the script removes these by a command for each queue, so
/// that it knows how many were listed.
pub(super) fn sorted<'a, I: Iterator<Item = &'a Settlement>>(
    call: &'a WorkerCall<'a>,
    plain: impl Fn() -> I,
) -> impl Iterator<Item = &'a Settlement> {
    let is_of = |it: &Settlement, limited: &LimitedQueue| it.attempt.queue == limited.queue;
    let others = plain().filter(move |it| !call.limited.iter().any(|limited| is_of(it, limited)));
    others.chain(call.limited.iter().flat_map(move |limited| plain().filter(move |it| is_of(it, limited))))
}

/// Writes, if a call names limits, where it meets a queue with one: whether an attempt of such a queue has ended, and which of
/// the queues that it looks at are such. The script reads the limits only where that says so, and to count anew.
pub(super) fn write_meetings(call: &WorkerCall<'_>, text: &mut Vec<u8>) {
    if call.limited.is_empty() {
        return;
    }
    let has_limits = |queue: &str| call.limited.iter().any(|limited| *limited.queue == *queue);
    text.push(call.settlements.iter().any(|it| has_limits(&it.attempt.queue)).into());
    text.extend(call.queues.iter().map(|queue| u8::from(has_limits(queue))));
}

/// Writes the limits that a call names, as the script reads them.
pub(super) fn write(call: &WorkerCall<'_>, text: &mut Vec<u8>) {
    for limited in call.limited {
        let successes = call.settlements.iter().filter(|it| is_plain(it) && it.attempt.queue == limited.queue);
        write_rule(limited, successes.count(), text);
    }
}

fn write_rule(LimitedQueue { queue, limits, takes_turns }: &LimitedQueue, successes: usize, text: &mut Vec<u8>) {
    let (burst, interval_us) = limits.rate.map_or((0, 0.0), |rate| (rate.burst(), rate.interval_us()));
    let successes = u32::try_from(successes).unwrap_or(u32::MAX);
    for number in [successes, limits.running.unwrap_or(0), burst] {
        text.extend_from_slice(&number.to_le_bytes());
    }
    text.extend_from_slice(&interval_us.to_le_bytes());
    text.push((*takes_turns).into());
    let name = &queue.as_bytes()[..queue.len().min(u8::MAX.into())]; // a queue has a hundred bytes at most
    text.push(name.len() as u8);
    text.extend_from_slice(name);
}

/// Reads the queues that a limit holds up, which a reply has only if there are any.
pub(super) fn read_held_up(rare: &mut ReplyItems, call: &WorkerCall<'_>) -> Option<Vec<HeldUpQueue>> {
    if rare.len() == 0 {
        return Some(Vec::new());
    }
    let texts = rare.texts()?;
    let read = |pair: &[String]| {
        let [place, opens_in] = pair else { return None };
        let queue = call.limited.get(place.parse::<usize>().ok()?)?.queue.clone();
        Some(HeldUpQueue { queue, opens_in: opens_in.parse().ok().map(Duration::from_micros) })
    };
    texts.chunks(2).map(read).collect()
}

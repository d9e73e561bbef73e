//! The forms in which jobs and attempts are stored.

use std::sync::Arc;

use bytes::Bytes;
use phalanx_core::backend::{AttemptKey, FetchedJob, JobCounters};

use crate::resp::{self, decimal};

/// The field of an attempt: `<token> <queue> <attempts> <deaths> <stalls>`.
pub(super) fn field_of(attempt: &AttemptKey) -> String {
    let JobCounters { attempts, deaths, stalls } = attempt.counters;
    format!("{} {} {attempts} {deaths} {stalls}", attempt.token, attempt.queue)
}

/// Writes it in place of what the buffer holds.
pub(super) fn write_field<'a>(attempt: &AttemptKey, field: &'a mut Vec<u8>) -> &'a [u8] {
    let JobCounters { attempts, deaths, stalls } = attempt.counters;
    let mut digits = [0; resp::MAX_DIGITS];
    field.clear();
    field.extend_from_slice(decimal(attempt.token, &mut digits));
    field.push(b' ');
    field.extend_from_slice(attempt.queue.as_bytes());
    for counter in [attempts, deaths, stalls] {
        field.push(b' ');
        field.extend_from_slice(decimal(counter.into(), &mut digits));
    }
    field
}

/// Reads the field of an attempt. The queue of a foreign job may have any name, also with spaces.
pub(super) fn parse_field(field: &str) -> Option<AttemptKey> {
    let (token, rest) = field.split_once(' ')?;
    let mut parts = rest.rsplitn(4, ' ');
    let mut counter = || parts.next()?.parse().ok();
    let (stalls, deaths, attempts) = (counter()?, counter()?, counter()?);
    let queue = parts.next().filter(|queue| !queue.is_empty())?;
    let counters = JobCounters { attempts, deaths, stalls };
    Some(AttemptKey { token: token.parse().ok()?, queue: queue.into(), counters })
}

/// The counters and the text of a job that ran before: `!` if it was given back, `<attempts> <deaths> <stalls> <job>`. What
/// is not of that form is a text.
pub(super) fn split_counters(entry: &Bytes) -> (JobCounters, Bytes) {
    parse_counters(entry).unwrap_or_else(|| (JobCounters::default(), entry.clone()))
}

/// Most digits of a counter: scripts do not take a longer number for one.
const MAX_DIGITS: usize = 9;

pub(super) fn parse_counters(entry: &Bytes) -> Option<(JobCounters, Bytes)> {
    let mut at = usize::from(entry.first() == Some(&b'!'));
    let mut counter = || {
        let length = entry[at..].iter().position(|byte| *byte == b' ')?;
        let digits = &entry[at..at + length];
        at += length + 1;
        let is_counter = length <= MAX_DIGITS && digits.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(digits).ok().filter(|_| is_counter)?.parse().ok()
    };
    let counters = JobCounters { attempts: counter()?, deaths: counter()?, stalls: counter()? };
    Some((counters, entry.slice(at..)))
}

/// Reads an entry of the hash of attempts.
pub(super) fn parse_attempt(field: &[u8], text: Bytes) -> Option<FetchedJob> {
    let attempt = parse_field(std::str::from_utf8(field).ok()?)?;
    Some(FetchedJob { attempt, text })
}

/// The attempt that fetches a job with these counters.
pub(super) fn begun(token: u64, queue: &Arc<str>, counters: JobCounters) -> AttemptKey {
    let counters = JobCounters { attempts: counters.attempts.saturating_add(1), ..counters };
    AttemptKey { token, queue: queue.clone(), counters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_read_as_they_were_written() {
        let counters = JobCounters { attempts: 3, deaths: 2, stalls: 1 };
        let attempt = AttemptKey { token: 7, queue: "a:b.c_d-e".into(), counters };
        assert_eq!(parse_field(&field_of(&attempt)), Some(attempt.clone()));
        assert_eq!(write_field(&attempt, &mut b"before".to_vec()), field_of(&attempt).as_bytes());
        let foreign = AttemptKey { queue: "my queue\n".into(), ..attempt.clone() };
        assert_eq!(parse_field(&field_of(&foreign)), Some(foreign));
        for wrong in ["", "7 q 1 2", "7  1 2 3", "x q 1 2 3", "7 q 1 2 -3"] {
            assert_eq!(parse_field(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_begins_behind_its_counters() {
        let counters = JobCounters { attempts: 1, deaths: 0, stalls: 4 };
        for (entry, expected) in [
            (&b"1 0 4 {} \xff\n"[..], (counters, &b"{} \xff\n"[..])),
            (b"!1 0 4 ", (counters, b"")),
            (b"{\"class\": 1 2 3}", (JobCounters::default(), b"{\"class\": 1 2 3}")),
            (b"1 2", (JobCounters::default(), b"1 2")),
            (b"100000000000000 0 0 {}", (JobCounters::default(), b"100000000000000 0 0 {}")),
            (b"1000000000 0 0 {}", (JobCounters::default(), b"1000000000 0 0 {}")),
            (b"+1 0 0 {}", (JobCounters::default(), b"+1 0 0 {}")),
        ] {
            let (read, text) = split_counters(&Bytes::from_static(entry));
            assert_eq!((read, &text[..]), expected);
        }
    }
}

//! The ticks of a schedule: which instants they are. Pure.
//!
//! The clocks of a time zone are set forward and back. A line without `*` and steps in minute and hour names times of a day: one
//! that the clock leaves out comes at the first moment after the gap, one that it shows twice comes once, the first time. Every
//! other line goes on with the clock: nothing in the gap, and both hours that it shows twice.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use phalanx_core::task::TickRule;

/// Most times of a day that one line may name to be taken for such times; one that names more goes on with the clock.
const MAX_TIMES: usize = 100;

/// The ticks of a schedule.
#[derive(Debug)]
pub(crate) enum Calendar {
    /// The multiples of so many milliseconds since 1970.
    Every(u64),
    /// The times of any of these lines.
    Cron { lines: Vec<Cron>, timezone: Tz },
}

impl Calendar {
    /// The calendar of a rule, or what is wrong with it.
    pub(crate) fn new(rule: &TickRule) -> Result<Self, String> {
        let (line, timezone) = match rule {
            TickRule::Every(interval) => {
                let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
                return Ok(Self::Every(interval_ms));
            }
            TickRule::Cron { line, timezone } => (*line, *timezone),
        };
        let zone = timezone.parse::<Tz>();
        let zone = zone.map_err(|_| format!("timezone = {timezone:?}: there is no such time zone"))?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_nickname = fields.len() == 1 && line.contains('@');
        if fields.len() != 5 && !is_nickname {
            return Err(format!("cron = {line:?}: five fields, and this line has {}", fields.len()));
        }
        let parse = |line: &str| parser.parse(line).map_err(|error| format!("cron = {line:?}: {error}"));
        let whole = parse(line)?;
        let lines = match times_of_a_day(&fields) {
            Some(times) => {
                let days = fields[2..].join(" ");
                let lines = times.into_iter().map(|(minute, hour)| parse(&format!("{minute} {hour} {days}")));
                lines.collect::<Result<_, _>>()?
            }
            None => vec![whole],
        };
        let calendar = Self::Cron { lines, timezone: zone };
        match calendar.next(0) {
            Some(_) => Ok(calendar),
            None => Err(format!("cron = {line:?}: it never comes")),
        }
    }

    /// The first tick after that time; `None` if there is none. Both are Unix time in milliseconds.
    pub(crate) fn next(&self, after_ms: u64) -> Option<u64> {
        match self {
            Self::Every(interval_ms) => (after_ms / interval_ms + 1).checked_mul(*interval_ms),
            Self::Cron { lines, timezone } => {
                let after = second_of(after_ms)?.with_timezone(timezone);
                let ticks = lines.iter().filter_map(|line| line.find_next_occurrence(&after, false).ok());
                ticks.filter(|tick| *tick > after).filter_map(ms_of).min()
            }
        }
    }

    /// The last tick that is not after that time; `None` if there is none.
    pub(crate) fn last(&self, until_ms: u64) -> Option<u64> {
        match self {
            Self::Every(interval_ms) => Some(until_ms / interval_ms * interval_ms),
            Self::Cron { lines, timezone } => {
                let until = second_of(until_ms)?.with_timezone(timezone);
                let ticks = lines.iter().filter_map(|line| line.find_previous_occurrence(&until, true).ok());
                ticks.filter(|tick| *tick <= until).filter_map(ms_of).max()
            }
        }
    }
}

/// The times of a day that minute and hour name, if they are numbers, lists and ranges, as pairs of these fields.
fn times_of_a_day(fields: &[&str]) -> Option<Vec<(u32, u32)>> {
    let &[minutes, hours, _, _, _] = fields else { return None };
    let (minutes, hours) = (numbers(minutes)?, numbers(hours)?);
    if minutes.len() * hours.len() > MAX_TIMES {
        return None;
    }
    Some(hours.iter().flat_map(|hour| minutes.iter().map(|minute| (*minute, *hour))).collect())
}

fn numbers(field: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in field.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// Ticks are whole seconds: the second that a time lies in.
fn second_of(ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(ms / 1000).ok()?, 0)
}

fn ms_of(tick: DateTime<Tz>) -> Option<u64> {
    u64::try_from(tick.timestamp_millis()).ok()
}

#[cfg(test)]
mod tests;

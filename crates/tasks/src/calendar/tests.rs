use std::time::Duration;

use super::*;

/// The calendar of a line.
fn cron(line: &'static str, timezone: &'static str) -> Calendar {
    Calendar::new(&TickRule::Cron { line, timezone }).unwrap()
}

fn ms(time: &str) -> u64 {
    DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis() as u64
}

/// The ticks after one time, up to the other; the walk back finds the same.
fn ticks(calendar: &Calendar, from: u64, until: u64) -> Vec<u64> {
    let next = |tick: &u64| calendar.next(*tick).filter(|tick| *tick <= until);
    let forward: Vec<u64> = std::iter::successors(next(&from), next).collect();
    let back = |tick: &u64| calendar.last(tick - 1).filter(|tick| *tick > from);
    let mut backward: Vec<u64> =
        std::iter::successors(calendar.last(until).filter(|tick| *tick > from), back).collect();
    backward.reverse();
    assert_eq!(forward, backward, "{calendar:?}");
    forward
}

/// The ticks of a day in a time zone, as `hour:minute` and the hours by which the clock is ahead of UTC.
fn day(line: &'static str, zone: &'static str, from: &str, until: &str) -> Vec<String> {
    let timezone: Tz = zone.parse().unwrap();
    let ticks = ticks(&cron(line, zone), ms(from) - 1, ms(until) - 1);
    let shown = |tick: u64| {
        let at = DateTime::from_timestamp_millis(tick as i64).unwrap().with_timezone(&timezone).naive_local();
        let ahead = (at.and_utc().timestamp_millis() - tick as i64) / 3_600_000;
        format!("{}+{ahead}", &at.time().to_string()[..5])
    };
    ticks.into_iter().map(shown).collect()
}

#[test]
fn a_year_in_berlin_has_as_many_ticks_as_its_days_and_quarters() {
    let (from, until) = (ms("2027-01-01T00:00:00+01:00") - 1, ms("2028-01-01T00:00:00+01:00") - 1);
    for (line, count) in [
        ("30 2 * * *", 365),
        ("*/15 * * * *", 35_040),
        ("0 3 * * *", 365),
        ("@hourly", 8760),
        ("30 2,14 * * *", 730),
        ("0 0 29 2 *", 0),
        ("0 0 L * *", 12),
    ] {
        let found = ticks(&cron(line, "Europe/Berlin"), from, until).len();
        println!("a year in Berlin of {line}: {found} ticks");
        assert_eq!(found, count, "{line}");
    }
}

/// On 28 March 2027 the clock of Berlin goes from 2:00 to 3:00; in the night before 31 October from 3:00 back to 2:00.
#[test]
fn a_time_in_the_gap_comes_after_it_and_a_doubled_one_once() {
    let gap = |line| day(line, "Europe/Berlin", "2027-03-28T01:00:00+01:00", "2027-03-28T05:00:00+02:00");
    let doubled = |line| day(line, "Europe/Berlin", "2027-10-31T01:30:00+02:00", "2027-10-31T04:00:00+01:00");
    for (line, of_gap, of_doubled) in [
        ("30 2 * * *", vec!["03:00+2"], vec!["02:30+2"]),
        ("0 3 * * *", vec!["03:00+2"], vec!["03:00+1"]),
        ("0,30 2 * * *", vec!["03:00+2"], vec!["02:00+2", "02:30+2"]),
        ("15 1-3 * * *", vec!["01:15+1", "03:00+2", "03:15+2"], vec!["02:15+2", "03:15+1"]),
        ("59 1 * * *", vec!["01:59+1"], vec!["01:59+2"]),
        ("0 * * * *", vec!["01:00+1", "03:00+2", "04:00+2"], vec!["02:00+2", "02:00+1", "03:00+1"]),
        (
            "*/30 * * * *",
            vec!["01:00+1", "01:30+1", "03:00+2", "03:30+2", "04:00+2", "04:30+2"],
            vec!["01:30+2", "02:00+2", "02:30+2", "02:00+1", "02:30+1", "03:00+1", "03:30+1"],
        ),
    ] {
        assert_eq!(gap(line), of_gap, "{line} in the gap");
        assert_eq!(doubled(line), of_doubled, "{line} doubled");
    }
}

/// Half an hour in Lord Howe, two hours in Troll, midnight in Havana.
#[test]
fn every_zone_is_walked_forward_as_back() {
    let (from, until) = (ms("2027-01-01T00:00:00Z"), ms("2028-01-01T00:00:00Z"));
    for (zone, days) in [
        ("Australia/Lord_Howe", 365),
        ("Antarctica/Troll", 365),
        ("America/Havana", 365),
        ("Africa/Casablanca", 365),
        ("UTC", 365),
    ] {
        for line in ["30 0 * * *", "15 2 * * *", "45 1 * * *"] {
            assert_eq!(ticks(&cron(line, zone), from, until).len(), days, "{zone} {line}");
        }
        ticks(&cron("7 */2 * * *", zone), from, until);
    }
}

#[test]
fn an_interval_ticks_at_its_multiples() {
    for (interval_ms, after, next, last) in
        [(1000, 0, 1000, 0), (1000, 999, 1000, 0), (1000, 1000, 2000, 1000), (250, 1001, 1250, 1000), (7, 20, 21, 14)]
    {
        let calendar = Calendar::new(&TickRule::Every(Duration::from_millis(interval_ms))).unwrap();
        assert_eq!((calendar.next(after), calendar.last(after)), (Some(next), Some(last)), "{interval_ms} {after}");
    }
    let ages = Calendar::new(&TickRule::Every(Duration::MAX)).unwrap();
    assert_eq!(ages.next(u64::MAX), None);
}

#[test]
fn lines_that_cannot_be_are_named_with_what_is_wrong() {
    for (line, timezone, part) in [
        ("* * * * * *", "UTC", "cron = \"* * * * * *\": five fields, and this line has 6"),
        ("0 0 1 1 * 2030", "UTC", "five fields"),
        ("* * * *", "UTC", "five fields, and this line has 4"),
        ("", "UTC", "five fields, and this line has 0"),
        ("@reboot", "UTC", "cron = \"@reboot\""),
        ("0 0 30 2 *", "UTC", "cron = \"0 0 30 2 *\": it never comes"),
        ("0 0 31 4,6 *", "Europe/Berlin", "it never comes"),
        ("60 * * * *", "UTC", "cron = \"60 * * * *\""),
        ("0 0 * * 8", "UTC", "cron"),
        ("*/0 * * * *", "UTC", "cron"),
        ("x 2 * * *", "UTC", "cron"),
        ("0 2 * * *", "Europe/Belrin", "timezone = \"Europe/Belrin\": there is no such time zone"),
        ("0 2 * * *", "", "timezone"),
    ] {
        let error = Calendar::new(&TickRule::Cron { line, timezone }).unwrap_err();
        assert!(error.contains(part), "{line:?}: {error}");
    }
}

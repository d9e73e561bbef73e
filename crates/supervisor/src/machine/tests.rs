//! A table of scripts: lines of a time in seconds, an input, `=>`, and the orders that follow from it.

use super::*;

/// The state under test, with one group of workers of the prefix `w`.
struct Script {
    supervisor: Supervisor,
}

impl Script {
    fn of(workers: u32) -> Self {
        let limits = Limits {
            start: Duration::from_secs(90),
            grace: Duration::from_secs(30),
            stop_delay: Duration::from_secs(2),
            silent_checks: 30,
        };
        Self { supervisor: Supervisor::new(vec![Group { prefix: "w".to_owned(), workers }], 0, limits) }
    }

    /// So many workers, ready at second 1.
    fn ready(workers: u32) -> Self {
        let mut script = Self::of(workers);
        script.run("0 time => *");
        for number in 1..=workers {
            script.run(&format!("1 ready {number} => *"));
        }
        script
    }

    /// Runs the lines of a script. `*` stands for any orders.
    fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (left, expected) = line.split_once("=>").unwrap();
            let (time, input) = left.trim().split_once(' ').unwrap();
            let now = Duration::from_secs_f64(time.parse().unwrap());
            let orders = self.supervisor.handle(now, trigger_of(input));
            let orders: Vec<String> = orders.iter().filter_map(text_of).collect();
            let expected = expected.trim();
            assert!(expected == "*" || orders.join(", ") == expected, "{line}: {orders:?}");
        }
    }

    /// Sends a check each second, with a beat of these workers before each; returns the orders.
    fn checks(&mut self, seconds: std::ops::RangeInclusive<u64>, beating: &[u32]) -> Vec<String> {
        let mut orders = Vec::new();
        for second in seconds {
            let now = Duration::from_secs(second);
            for number in beating {
                orders.extend(self.supervisor.handle(now, Trigger::Beat(WorkerKey { group: 0, number: *number })));
            }
            orders.extend(self.supervisor.handle(now, Trigger::Check));
        }
        orders.iter().filter_map(text_of).collect()
    }
}

fn trigger_of(text: &str) -> Trigger {
    let mut words = text.splitn(3, ' ');
    let kind = words.next().unwrap();
    let number = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default();
    let key = || WorkerKey { group: 0, number: number.parse().unwrap() };
    match kind {
        "time" => Trigger::Time,
        "check" => Trigger::Check,
        "ready" => Trigger::Ready(key()),
        "failed" => Trigger::Failed(key(), rest.to_owned()),
        "work" => Trigger::CutWork(key(), rest.to_owned()),
        "exit" => Trigger::Ended(key(), WorkerEnd::Exit(rest.parse().unwrap())),
        "killed" => Trigger::Ended(key(), WorkerEnd::Signal { number: 9, out_of_memory: rest == "oom" }),
        "stuck" => Trigger::Ended(key(), WorkerEnd::Stuck { pid: rest.parse().unwrap() }),
        "unstarted" => Trigger::Ended(key(), WorkerEnd::NotStarted(rest.to_owned())),
        "roll" => Trigger::Roll,
        "missing" => Trigger::NoProgram(format!("{number} {rest}")),
        "add" => Trigger::Scale(ScaleChange::Add),
        "remove" => Trigger::Scale(ScaleChange::Remove),
        "to" => Trigger::Scale(ScaleChange::To(number.parse().unwrap())),
        "term" => Trigger::Stop,
        "int" => Trigger::Interrupt,
        "hup" => Trigger::Reopen,
        _ => panic!("{text}"),
    }
}

/// An order as text; lines of the log are left out.
fn text_of(order: &Order) -> Option<String> {
    Some(match order {
        Order::Start(key, ProgramChoice::Current) => format!("start {}", key.number),
        Order::Start(key, ProgramChoice::OfRoll) => format!("start {} anew", key.number),
        Order::Stop(key) => format!("stop {}", key.number),
        Order::StopAll(key) => format!("stop all {}", key.number),
        Order::Signal(key, signal) => format!("{signal:?} {}", key.number).to_lowercase(),
        Order::Abandon(key) => format!("abandon {}", key.number),
        Order::Cut(key) => format!("cut {}", key.number),
        Order::OpenProgram => "open".to_owned(),
        Order::KeepProgram => "keep".to_owned(),
        Order::CloseSockets => "close".to_owned(),
        Order::FirstReady(key) => format!("first {}", key.number),
        Order::Reopen => "reopen".to_owned(),
        Order::RollEnded(RollEnd { number, stopped: None, .. }) => format!("rolled {number}"),
        Order::RollEnded(RollEnd { number, stopped: Some(why), .. }) => format!("unrolled {number}: {why}"),
        Order::Log(..) => return None,
        Order::Exit(code, None) => format!("end {code}"),
        Order::Exit(code, Some(why)) => format!("end {code}: {why}"),
    })
}

#[test]
fn all_workers_start_at_once_and_the_first_that_is_ready_is_announced() {
    Script::of(3).run(
        "0 time => start 1, start 2, start 3
         1 ready 2 => first 2
         2 ready 1 =>
         2 ready 3 =>
         3 hup => hup 1, hup 2, hup 3, reopen",
    );
}

#[test]
fn a_worker_that_ends_before_any_was_ready_ends_the_start() {
    Script::of(2).run(
        "0 time => start 1, start 2
         1 failed 2 the port is taken =>
         1 exit 2 1 => close, stop all 1
         2 exit 1 0 => end 1: w2 ended with exit status 1: the port is taken",
    );
    Script::of(1).run(
        "0 time => start 1
         0 unstarted 1 no such file => close, end 1: w1 could not be started: no such file",
    );
    Script::of(1).run(
        "0 time => start 1
         89.9 time =>
         90 time => kill 1
         90 killed 1 => close, end 1: w1 was ended by signal 9: not ready within 90s",
    );
}

#[test]
fn a_roll_goes_from_the_highest_number_and_starts_each_replacement_under_the_lowest_free_one() {
    Script::ready(3).run(
        "10 roll => open, start 4 anew
         11 ready 4 =>
         11.9 time =>
         12 time => stop 3
         13 exit 3 0 => start 3 anew
         14 ready 3 =>
         15 time => stop 2
         16 exit 2 0 => start 2 anew
         17 ready 2 =>
         18 time => stop 1
         19 exit 1 0 => keep, rolled 1",
    );
}

#[test]
fn a_replacement_that_does_not_serve_stops_the_roll_and_the_old_workers_stay() {
    for (end, why) in [
        ("11 exit 3 1 => unrolled 1: w3 ended with exit status 1", ""),
        ("11 failed 3 no such key => kill 3, unrolled 1: w3: no such key", "11 killed 3 =>"),
        ("11 unstarted 3 text file busy => unrolled 1: w3 could not be started: text file busy", ""),
        ("100 time => kill 3, unrolled 1: w3 was not ready within 90s", "100 killed 3 =>"),
        ("11 missing no file => kill 3, unrolled 1: no file", "11 killed 3 =>"),
    ] {
        let mut script = Script::ready(2);
        script.run("10 roll => open, start 3 anew");
        script.run(end);
        script.run(why);
        script.run("200 time =>\n201 roll => open, start 3 anew");
        assert_eq!(script.supervisor.ready(), (2, 2));
    }
}

#[test]
fn a_replacement_that_was_ready_is_proven_for_a_second_and_its_end_stops_the_roll_later_too() {
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         11 ready 3 =>
         11.5 killed 3 => unrolled 1: w3 was ended by signal 9",
    );
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         11 ready 3 =>
         12 time => stop 2
         12.5 killed 3 => unrolled 1: w3 was ended by signal 9, start 3
         13 exit 2 0 =>
         14 ready 3 =>
         15 roll => open, start 2 anew",
    );
}

#[test]
fn a_roll_waits_for_all_others_to_be_ready() {
    Script::ready(3).run(
        "10 roll => open, start 4 anew
         11 killed 1 => start 1
         12 ready 4 =>
         14 time =>
         15 ready 1 => stop 3",
    );
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         12 killed 1 => start 1
         13 ready 3 =>
         90 time =>
         103 time => kill 1, stop 3, unrolled 1: w1 was not ready within 90s",
    );
}

#[test]
fn an_old_worker_that_ends_by_itself_is_replaced_by_the_one_that_starts_already() {
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         11 killed 2 =>
         12 ready 3 =>
         13 time => start 2 anew
         14 ready 2 =>
         15 time => stop 1
         16 exit 1 0 => keep, rolled 1",
    );
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         11 killed 2 =>
         12 exit 3 1 => unrolled 1: w3 ended with exit status 1, start 2",
    );
}

#[test]
fn a_worker_that_is_replaced_during_a_roll_is_rolled_as_well_and_crashes_after_it_run_the_new_program() {
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         11 killed 1 => start 1
         12 ready 1 =>
         12 ready 3 =>
         13 time => stop 2
         14 exit 2 0 => start 2 anew
         15 ready 2 =>
         16 time => stop 1
         17 exit 1 0 => keep, rolled 1
         18 killed 2 => start 1",
    );
}

#[test]
fn an_old_worker_that_does_not_stop_is_killed_after_the_grace_and_five_seconds() {
    Script::ready(1).run(
        "10 roll => open, start 2 anew
         11 ready 2 =>
         12 time => stop 1
         46.9 time =>
         47 time => kill 1
         47.1 killed 1 => keep, rolled 1",
    );
}

#[test]
fn requests_during_a_roll_make_one_more_roll_and_the_number_changes_in_between() {
    Script::ready(1).run(
        "10 roll => open, start 2 anew
         10 roll =>
         10 roll =>
         10 add =>
         10 add =>
         10 remove =>
         11 ready 2 =>
         12 time => stop 1
         13 exit 1 0 => keep, rolled 1, open, start 1 anew, start 3
         14 ready 1 =>
         14 ready 3 =>
         15 time => stop 2
         16 exit 2 0 => start 2 anew
         17 ready 2 =>
         18 time => stop 3
         19 exit 3 0 => keep, rolled 2
         20 time =>",
    );
}

#[test]
fn term_during_a_roll_stops_all() {
    Script::ready(2).run(
        "10 roll => open, start 3 anew
         10 roll =>
         11 term => unrolled 1: all workers are to stop, close, stop all 1, stop all 2, stop all 3
         12 exit 3 0 =>
         12 roll =>
         12 add =>
         12 term =>
         13 exit 1 0 =>
         14 exit 2 0 => end 0",
    );
}

#[test]
fn a_stop_closes_the_sockets_first_and_kills_after_delay_grace_and_five_seconds() {
    Script::ready(2).run(
        "10 term => close, stop all 1, stop all 2
         11 exit 1 0 =>
         46.9 time =>
         47 time => kill 2
         47 killed 2 => end 1: w2 was ended by signal 9",
    );
    Script::ready(1).run("10 term => close, stop all 1\n11 exit 1 0 => end 0");
    Script::ready(1).run(
        "10 term => close, stop all 1
         11 killed 1 oom => end 1: w1 was ended by signal 9, and the kernel has killed for memory (oom_kill)",
    );
}

#[test]
fn a_killed_worker_that_does_not_end_is_not_waited_for_and_keeps_its_number() {
    Script::ready(1).run(
        "10 term => close, stop all 1
         47 time => kill 1
         51.9 time =>
         52 time => abandon 1
         52 stuck 1 77 => end 1: w1 was killed and does not end: process 77 is not waited for any longer",
    );
    let mut script = Script::ready(2);
    script.checks(1..=1, &[1, 2]);
    script.checks(2..=31, &[1]);
    script.run(
        "33 time => kill 2
         38 time => abandon 2
         38 stuck 2 77 => start 3
         39 ready 3 =>
         40 to 3 => start 4
         50 killed 2 =>
         51 ready 4 =>
         52 to 4 => start 2",
    );
    Script::ready(1).run(
        "10 roll => open, start 2 anew
         11 ready 2 =>
         12 time => stop 1
         47 time => kill 1
         52 time => abandon 1
         52 stuck 1 77 => keep, rolled 1",
    );
}

#[test]
fn a_second_int_after_more_than_a_second_cuts() {
    Script::ready(2).run(
        "10 int => close, stop all 1, stop all 2
         11 int =>
         11.5 int => cut 1, cut 2
         12 int =>
         13 work 1 action a, task b =>
         13 exit 1 1 =>
         13.5 time => kill 2
         14 killed 2 => end 1: interrupted a second time: running calls are cut off: w1: action a, task b",
    );
}

#[test]
fn the_last_line_names_the_cut_work_of_some_workers_and_counts_the_others() {
    let mut script = Script::ready(10);
    script.run("9 work 1 of a roll => \n10 term => *");
    for number in 1..=9 {
        script.run(&format!("40 work {number} a =>\n40 exit {number} 1 =>"));
    }
    let [first, rest] = ["w1 ended with exit status 1: w1: a; ", "; w8: a; and 1 other workers have cut off work"];
    let named: Vec<String> = (2..8).map(|number| format!("w{number}: a")).collect();
    script.run(&format!("41 exit 10 0 => end 1: {first}{}{rest}", named.join("; ")));
}

#[test]
fn a_worker_that_ends_is_replaced_at_once_and_then_after_longer_waits() {
    let mut script = Script::ready(20); // so many that these ends are not too many
    script.run("2 killed 1 => start 1");
    let mut now = 2.0;
    for wait in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        script.run(&format!("{now} killed 1 =>"));
        script.run(&format!("{} time =>", now + wait - 0.1));
        now += wait;
        script.run(&format!("{now} time => start 1"));
    }
    script.run(&format!("{now} ready 1 =>"));
    now += 60.0;
    script.run(&format!("{now} killed 1 => start 1"));
}

#[test]
fn a_worker_that_others_stopped_is_replaced_at_once_and_not_counted() {
    let mut script = Script::ready(1);
    for second in 2..20 {
        script.run(&format!("{second} exit 1 0 => start 1\n{second} ready 1 =>"));
    }
}

/// It stops properly, as one does whose parent is gone.
#[test]
fn a_worker_whose_link_was_closed_for_its_messages_counts_as_failed() {
    Script::ready(1).run(
        "2 failed 1 too many messages are not understood =>
         3 exit 1 0 => start 1
         4 ready 1 =>
         5 failed 1 too many messages are not understood =>
         6 exit 1 0 =>
         6.9 time =>
         7 time => start 1",
    );
}

#[test]
fn too_many_ends_end_the_parent_if_no_worker_is_ready_and_slow_it_down_otherwise() {
    Script::ready(1).run(
        "2 killed 1 => start 1
         2 killed 1 =>
         3 time => start 1
         3 exit 1 7 => close, end 1: more than 2 workers ended in 30 s, and none is ready: w1 ended with exit status 7",
    );
    Script::ready(2).run(
        "2 killed 1 => start 1
         2 killed 1 =>
         3 time => start 1
         3 killed 1 =>
         5 time => start 1
         5 killed 1 =>
         9 time => start 1
         9 killed 1 =>
         38.9 time =>
         39 time => start 1",
    );
}

#[test]
fn a_silent_worker_is_aborted_after_thirty_checks_and_killed_two_seconds_later() {
    let mut script = Script::ready(2);
    // The first check sees that it has just become ready.
    assert_eq!(script.checks(2..=31, &[1]), [""; 0]);
    assert_eq!(script.checks(32..=32, &[1]), ["abrt 2"]);
    script.run("33.9 time =>\n34 time => kill 2\n34 killed 2 => start 2");
    assert_eq!(script.checks(35..=123, &[1]), [""; 0], "one that boots is not judged");
}

#[test]
fn a_beat_or_a_late_check_sets_the_count_to_zero() {
    let mut script = Script::ready(1);
    script.checks(2..=31, &[]);
    script.checks(32..=32, &[1]);
    assert_eq!(script.checks(33..=61, &[]), [""; 0]);
    assert_eq!(script.checks(65..=94, &[]), [""; 0], "the check of second 65 came 3 s late");
    assert_eq!(script.checks(95..=95, &[]), ["abrt 1"]);
}

#[test]
fn neither_a_worker_that_boots_nor_one_that_stops_counts_as_hung() {
    let mut script = Script::ready(2);
    script.run("2 remove => stop 2");
    assert_eq!(script.checks(2..=36, &[1]), [""; 0]);
    assert_eq!(script.checks(37..=37, &[1]), ["kill 2"]);
}

#[test]
fn workers_are_added_and_removed_and_the_last_one_stays() {
    Script::ready(1).run(
        "10 remove =>
         10 add => start 2
         11 ready 2 =>
         11 remove => stop 2
         11 remove =>
         11 add => start 3
         12 exit 2 0 =>
         12 to 4 => start 2, start 4
         13 to 1 => stop 4, stop 3, stop 2
         14 to 513 =>
         14 to 0 =>",
    );
}

#[test]
fn a_removed_place_that_waits_for_its_replacement_is_the_first_to_go() {
    Script::ready(2).run(
        "2 killed 1 => start 1
         3 killed 1 =>
         3.5 remove =>
         10 time =>",
    );
}

#[test]
fn the_time_of_the_next_decision_is_known() {
    let mut script = Script::of(2);
    let due = |script: &Script| script.supervisor.next_due().map(|due| due.as_secs_f64());
    script.run("0 time => *");
    assert_eq!(due(&script), Some(90.0));
    script.run("1 ready 1 => *\n1 ready 2 =>");
    assert_eq!(due(&script), None);
    script.run("10 roll => *\n11 ready 3 =>");
    assert_eq!(due(&script), Some(12.0));
    script.run("12 time => stop 2");
    assert_eq!(due(&script), Some(47.0));
    script.run("13 killed 1 => start 1\n14 killed 1 =>");
    assert_eq!(due(&script), Some(15.0));
}

#[test]
fn groups_keep_their_numbers_apart() {
    let groups = vec![Group { prefix: "w".to_owned(), workers: 1 }, Group { prefix: "jobs-".to_owned(), workers: 2 }];
    let limits = Script::of(1).supervisor.limits;
    let mut supervisor = Supervisor::new(groups, 0, limits);
    let orders = supervisor.handle(Duration::ZERO, Trigger::Time);
    let started = orders.iter().filter_map(|order| match order {
        Order::Start(key, _) => Some(supervisor.id(*key)),
        _ => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), ["w1", "jobs-1", "jobs-2"]);
    assert_eq!(supervisor.ready(), (0, 3));
}

//! No request fails while workers are rolled, added and removed under load: `ROUNDS` rolls (3), many in `just chaos`.

use std::fs;
use std::time::Duration;

use phalanx_testkit::{Signal, print};
use tokio::time::Instant;

use super::{Workers, ids, rounds};
use crate::cluster::until;
use crate::drain::clients::Class;
use crate::drain::load::{Load, Outcomes, tour_files};
use crate::panics::SOON;

/// The place in [`Class::ALL`] of the clients with up to 40 ms between requests, whose times are measured.
const PACED: usize = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_none_is_refused_while_workers_change_under_load() {
    let rounds = rounds();
    let public = tour_files();
    let folder = public.path().to_str().unwrap();
    let workers = Workers::start(3, &[("PHALANX__PATHS__PUBLIC", folder)]).await;
    assert_eq!(workers.pids().await.into_keys().collect::<Vec<_>>(), ids(&[1, 2, 3]));
    let load = Load::on_tour(workers.parent.addr);
    let (mut rolls, mut before_all, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        load.until_more(1).await;
        let before = workers.pids().await;
        before_all.extend(load.class(PACED).p99());
        let begin = Instant::now();
        workers.parent.signal(Signal::USR2);
        workers.until_logged("is complete", round).await;
        rolls.push(begin.elapsed());
        over.extend(load.class(PACED).p99());
        let after = workers.pids().await;
        assert!(after.len() == 3 && after.values().all(|pid| !before.values().any(|old| old == pid)), "{after:?}");
        print_connections(&workers).await;
    }
    workers.parent.signal(Signal::TTIN);
    workers.until_ready(4).await;
    workers.parent.signal(Signal::TTOU);
    workers.until_ready(3).await;
    let all = Outcomes::print(load.end().await);
    rolls.sort();
    print(format_args!("{rounds} rolls of 3 workers: median {:?}, longest {:?}", rolls[rolls.len() / 2], rolls.last()));
    assert_eq!((all.failed, all.refused), (0, 0), "{}", workers.parent.stderr());
    check_p99(before_all, over);
    workers.stop().await;
}

/// Compares the medians: of the times between rolls, and over rolls. `P99_LIMIT=1.2` is for a machine without other
/// load.
fn check_p99(mut before: Vec<Duration>, mut over: Vec<Duration>) {
    before.sort_unstable();
    over.sort_unstable();
    let (before, over) = (before[before.len() / 2], over[over.len() / 2]);
    let ratio = over.as_secs_f64() / before.as_secs_f64();
    print(format_args!(
        "p99 of {:?}: {before:.1?} before rolls, {over:.1?} over them: {ratio:.2}",
        Class::ALL[PACED].0
    ));
    let limit = std::env::var("P99_LIMIT").ok().and_then(|limit| limit.parse().ok()).unwrap_or(f64::MAX);
    assert!(ratio <= limit, "{ratio} is more than {limit}");
}

async fn print_connections(workers: &Workers) {
    let status = workers.status().await;
    let each = status["workers"].as_array().unwrap().iter();
    let each: Vec<String> = each.map(|worker| format!("{} {}", worker["id"], worker["connections"])).collect();
    print(format_args!("connections: {}", each.join(", ")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_is_waited_for_and_its_steps_are_printed() {
    let workers = Workers::start(2, &[]).await;
    let output = workers.command(&["cluster", "roll"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", workers.parent.stderr());
    for step in ["phalanx-worker-3 replaces phalanx-worker-2", "phalanx-worker-2 replaces phalanx-worker-1"] {
        assert!(text.contains(step), "{text}");
    }
    assert_eq!(text.lines().last(), Some("roll 1 is complete"));
    assert_eq!(workers.pids().await.into_keys().collect::<Vec<_>>(), ids(&[2, 3]));
    let status = workers.status().await;
    assert_eq!((&status["last_roll"]["number"], &status["last_roll"]["result"]), (&1.into(), &"completed".into()));
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_workers_changes_by_command_and_signal_and_the_last_one_stays() {
    let workers = Workers::start(1, &[]).await;
    let output = workers.command(&["cluster", "scale", "3"]).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().last(), Some("3 workers are ready"));
    let output = workers.command(&["cluster", "scale", "1"]).await;
    assert!(output.status.success());
    assert_eq!(workers.pids().await.into_keys().collect::<Vec<_>>(), ids(&[1]));
    let before = workers.pids().await;
    workers.parent.signal(Signal::TTOU);
    workers.until_logged("the last worker is not removed", 1).await;
    assert_eq!(workers.pids().await, before);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", workers.parent.pid())).unwrap().count();
    let open = descriptors(); // with the connection of the last command, if the parent has not closed that yet
    for _ in 0..rounds() {
        workers.parent.signal(Signal::TTIN);
        workers.until_ready(2).await;
        workers.parent.signal(Signal::TTOU);
        workers.until_ready(1).await;
    }
    until("no descriptor is left over", SOON, async || descriptors() <= open).await;
    workers.stop().await;
}

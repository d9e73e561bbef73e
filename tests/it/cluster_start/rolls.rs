//! No request fails while workers are rolled, added and removed under load: `ROUNDS` rolls (2), with `CLIENTS` (50) that
//! are quiet for long and `SOCKETS` (30) in a room; more in `just chaos`.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use phalanx_testkit::{Signal, print};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::sockets::{ROOM, Returns};
use super::{Workers, ids};
use crate::client::Socket;
use crate::cluster::tasks::harness::setting;
use crate::cluster::until;
use crate::drain::load::{Load, Outcomes, tour_files};
use crate::panics::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_none_is_refused_while_workers_change_under_load() {
    let (rounds, members) = (setting("ROUNDS", 2) as usize, setting("SOCKETS", 30) as usize);
    let public = tour_files();
    let environment = [
        ("PHALANX__PATHS__PUBLIC", public.path().to_str().unwrap()),
        ("PHALANX__WEBSOCKET__DRAIN", "1s"),
        ("RUST_LOG", "warn,phalanx_supervisor=info"), // a line for each request would fill the disk
    ];
    let workers = Workers::start(3, &environment).await;
    assert_eq!(workers.pids().await.into_keys().collect::<Vec<_>>(), ids(&[1, 2, 3]));
    let addr = workers.parent.addr;
    let (returns, mut sockets) = (Arc::<Returns>::default(), JoinSet::new());
    for _ in 0..members {
        sockets.spawn(returns.clone().stay(addr, Socket::join(addr, ROOM).await));
    }
    let load = Load::on_tour(addr);
    load.until_more(1).await;
    check_connections(&workers, "after the start").await;
    let (mut rolls, mut stops) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = workers.pids().await;
        let begin = Instant::now();
        workers.parent.signal(Signal::USR2);
        for pid in before.values().rev() {
            stops.push(workers.stop_of(*pid).await);
        }
        workers.until_logged(&format!("roll {round} is complete"), 1).await;
        rolls.push(begin.elapsed());
        let after = workers.pids().await;
        assert!(after.len() == 3 && after.values().all(|pid| !before.values().any(|old| old == pid)), "{after:?}");
        returns.check(&format!("roll {round}"), members, 1001).await;
        load.until_more(1).await;
        check_connections(&workers, &format!("after roll {round}")).await;
        if round == rounds.div_ceil(2) {
            workers.parent.signal(Signal::TTIN);
            workers.until_ready(4).await;
            workers.parent.signal(Signal::TTOU);
            workers.until_ready(3).await;
            returns.check("a worker more and one less", 0, 1001).await;
        }
    }
    let all = Outcomes::print(load.end().await);
    print_times(&format!("{rounds} rolls of 3 workers"), rolls);
    print_times("stops of a worker", stops);
    assert_eq!((all.failed, all.refused), (0, 0), "{}", workers.parent.stderr());
    sockets.shutdown().await;
    workers.stop().await;
}

fn print_times(of: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    print(format_args!("{of}: median {:.2?}, longest {:.2?}", times[times.len() / 2], times[times.len() - 1]));
}

/// Prints the connections of each worker, and checks that none has more than twice the mean: the few of a short run may be
/// where chance has put them.
async fn check_connections(workers: &Workers, when: &str) {
    let status = workers.status().await;
    let all = status["workers"].as_array().unwrap().iter();
    let each: Vec<u64> = all.map(|worker| worker["connections"].as_u64().unwrap()).collect();
    print(format_args!("connections of each worker {when}: {each:?}"));
    let mean = each.iter().sum::<u64>() / each.len() as u64;
    assert!(mean < 100 || each.iter().all(|connections| *connections <= 2 * mean), "{when}: {each:?}");
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
    for _ in 0..setting("ROUNDS", 3) {
        workers.parent.signal(Signal::TTIN);
        workers.until_ready(2).await;
        workers.parent.signal(Signal::TTOU);
        workers.until_ready(1).await;
    }
    until("no descriptor is left over", SOON, async || descriptors() <= open).await;
    workers.stop().await;
}

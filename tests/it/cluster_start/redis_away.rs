//! Redis goes away in the middle of a roll: no worker is killed for it, and the roll stops with a reason.

use std::time::Duration;

use phalanx_testkit::print;
use tokio::time::{Instant, sleep};

use super::Workers;
use crate::drain::clients::{Class, Clients};
use crate::drain::load::{Outcomes, TOUR};

/// How Redis goes away.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It answers nothing.
    Frozen,
    /// Its process is killed.
    Killed,
}

/// Workers without Redis beat on: they are watched for longer.
const BEAT_TIMEOUT: &str = "5s";
const WATCHED: Duration = Duration::from_secs(6);

/// The first replacement is ready when Redis goes away, so the old worker stops without it, and the second replacement
/// boots without it.
async fn roll_without_redis(fault: Fault) {
    let environment = [
        ("PHALANX__REDIS__BOOT_TIMEOUT", "3s"),
        ("PHALANX__CLUSTER__START_TIMEOUT", "20s"),
        ("PHALANX__CLUSTER__BEAT_TIMEOUT", BEAT_TIMEOUT),
        ("PHALANX__WEB__DRAIN", "500ms"),
        ("RUST_LOG", "warn,phalanx_supervisor=info"),
    ];
    let mut workers = Workers::start(3, &environment).await;
    let clients = Clients::start(Class::KeepAlive(200), 8, workers.parent.addr, TOUR);
    let old = workers.pids().await;
    let roll = tokio::spawn(workers.command(&["cluster", "roll"]));
    workers.until_logged("phalanx-worker-4 is ready", 1).await;
    match fault {
        Fault::Frozen => workers.redis.freeze(),
        Fault::Killed => workers.redis.kill().await,
    }
    let stop = workers.stop_of(old["phalanx-worker-3"]).await;
    let output = roll.await.unwrap();
    let (steps, reason) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    print(format_args!("{fault:?}: the stop of the old worker took {stop:.1?}; the roll: {}", reason.trim_end()));
    assert_eq!(output.status.code(), Some(1), "{steps}{reason}");
    assert!(reason.contains("phalanx-worker-3: ") && reason.contains("redis"), "{reason}");

    let begin = Instant::now();
    sleep(WATCHED).await; // nothing else shows that time has passed
    let left = workers.pids().await;
    let log = workers.parent.stderr();
    assert_eq!(left.len(), 3, "{log}");
    assert!(["phalanx-worker-1", "phalanx-worker-2"].iter().all(|id| left[*id] == old[*id]), "{left:?} {log}");
    assert!(left.contains_key("phalanx-worker-4"), "{left:?} {log}");
    for line in log.lines().filter(|line| line.contains("killed") || line.contains("by signal")) {
        assert!(line.contains("phalanx-worker-3"), "none but the replacement that got not ready: {line}");
    }
    match fault {
        Fault::Frozen => workers.redis.thaw(),
        Fault::Killed => workers.redis.start_again().await,
    }
    print(format_args!("{fault:?}: without Redis for {:.1?} more", begin.elapsed()));
    let output = workers.command(&["cluster", "roll"]).await;
    assert!(output.status.success(), "{output:?} {}", workers.parent.stderr());
    let new = workers.pids().await;
    assert!(new.len() == 3 && !new.values().any(|pid| left.values().any(|left| left == pid)), "{new:?}");
    let outcomes = Outcomes::of_all(clients).await;
    print(format_args!("{fault:?}: {outcomes:?}"));
    assert_eq!((outcomes.failed, outcomes.refused), (0, 0), "{}", workers.parent.stderr());
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_stops_and_the_workers_stay_when_redis_answers_nothing() {
    roll_without_redis(Fault::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_stops_and_the_workers_stay_when_redis_is_killed() {
    roll_without_redis(Fault::Killed).await;
}

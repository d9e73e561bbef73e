//! Workers that are killed under load: `KILLS` times (1).

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use phalanx_testkit::{Signal, print};
use tokio::time::timeout;

use super::rolls::TOUR;
use super::{Workers, signal};
use crate::cluster::tasks::harness::setting;
use crate::drain::clients::{Class, Clients};
use crate::panics::SOON;

/// A client has one request in flight, or two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_fails_the_requests_in_flight_and_no_other() {
    let kills = setting("KILLS", 1) as usize;
    let public = tempfile::tempdir().unwrap();
    fs::write(public.path().join("large.txt"), vec![b'a'; 4 << 20]).unwrap();
    let folder = public.path().to_str().unwrap();
    let workers = Workers::start(3, &[("PHALANX__PATHS__PUBLIC", folder)]).await;
    let classes = Class::ALL.map(|class| Clients::start(class, workers.parent.addr, TOUR));
    let count = |class: &Clients| (class.counts.complete.load(Relaxed), class.counts.failed.load(Relaxed));
    let until_more = async || {
        let more = async {
            for ((_, clients), class) in Class::ALL.iter().zip(&classes) {
                class.until(count(class).0 + clients * 2).await;
            }
        };
        timeout(SOON * 2, more).await.expect("each class gets responses");
    };
    until_more().await;
    let (mut before, mut lost) = (classes.each_ref().map(count), 0);
    for kill in 0..kills {
        let pids = workers.pids().await;
        signal(*pids.values().nth(kill % pids.len()).unwrap(), Signal::KILL);
        workers.until_logged("was ended by signal 9", kill + 1).await;
        // A client whose request was cut off has made the next one by then.
        until_more().await;
        let after = classes.each_ref().map(count);
        for (((class, clients), before), after) in Class::ALL.iter().zip(before).zip(after) {
            assert!(after.1 - before.1 <= *clients, "{class:?}: {} failed", after.1 - before.1);
            lost += after.1 - before.1;
        }
        workers.until_ready(3).await;
        until_more().await;
        let later = classes.each_ref().map(|class| count(class).1);
        assert_eq!(later, after.map(|counts| counts.1), "nothing fails later");
        before = classes.each_ref().map(count);
    }
    for class in &classes {
        class.end();
    }
    let (mut all, mut refused) = (0, 0);
    for running in classes {
        let counts = running.counts.clone();
        all += running.ended().await.0;
        refused += counts.refused.load(Relaxed);
    }
    print(format_args!(
        "{kills} kills: {all} responses, {lost} requests in flight failed, {refused} connections refused"
    ));
    assert_eq!(refused, 0);
    workers.stop().await;
}

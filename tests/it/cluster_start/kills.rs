//! Workers that are killed under load: `KILLS` times (1).

use phalanx_testkit::{Signal, print};

use super::{Workers, signal};
use crate::cluster::tasks::harness::setting;
use crate::drain::clients::Class;
use crate::drain::load::{Load, Outcomes, tour_files};

/// A client has one request in flight, or two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_fails_the_requests_in_flight_and_no_other() {
    let kills = setting("KILLS", 1) as usize;
    let public = tour_files();
    let folder = public.path().to_str().unwrap();
    let workers = Workers::start(3, &[("PHALANX__PATHS__PUBLIC", folder)]).await;
    let load = Load::on_tour(workers.parent.addr);
    load.until_more(2).await;
    let (mut before, mut lost) = (load.outcomes(), 0);
    for kill in 0..kills {
        let pids = workers.pids().await;
        signal(*pids.values().nth(kill % pids.len()).unwrap(), Signal::KILL);
        workers.until_logged("was ended by signal 9", kill + 1).await;
        // A client whose request was cut off has made the next one by then.
        load.until_more(2).await;
        let after = load.outcomes();
        for ((class, before), after) in Class::ALL.iter().zip(before).zip(after) {
            assert!(after.failed - before.failed <= class.clients(), "{class:?}: {before:?}, {after:?}");
            lost += after.failed - before.failed;
        }
        workers.until_ready(3).await;
        load.until_more(2).await;
        before = load.outcomes();
        assert_eq!(before.map(|later| later.failed), after.map(|after| after.failed), "nothing fails later");
    }
    let all = Outcomes::print(load.end().await);
    print(format_args!("{kills} kills: {lost} requests in flight failed"));
    assert_eq!(all.refused, 0);
    workers.stop().await;
}

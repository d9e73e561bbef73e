//! Workers that are added and removed again and again: `SCALINGS` times (20).

use std::fs;

use phalanx_testkit::{Signal, print};

use super::Workers;
use super::deaths::children;
use crate::cluster::tasks::harness::setting;
use crate::cluster::until;
use crate::panics::SOON;

/// Three in four of the added workers have to stop while they boot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_adds_and_removes_workers_keeps_no_descriptor_and_no_zombie() {
    let scalings = setting("SCALINGS", 20);
    let workers = Workers::start(1, &[("PHALANX__WEB__DRAIN", "100ms"), ("PHALANX__WEBSOCKET__DRAIN", "100ms")]).await;
    let parent = workers.parent.pid();
    let descriptors = || fs::read_dir(format!("/proc/{parent}/fd")).unwrap().count();
    let until_target = async |target: usize, processes: usize| {
        until("the parent has so many workers", SOON, async || {
            let status = workers.status().await;
            status["target"] == target && status["workers"].as_array().unwrap().len() >= processes
        })
        .await;
    };
    // The connection of the last command may be among them, if the parent has not closed that yet.
    let (before, mut most) = (descriptors(), 0);
    for scaling in 0..scalings {
        workers.parent.signal(Signal::TTIN);
        until_target(2, 2).await;
        if scaling % 4 == 0 {
            workers.until_ready(2).await;
        }
        most = most.max(descriptors());
        workers.parent.signal(Signal::TTOU);
        until_target(1, 1).await;
        workers.until_ready(1).await;
    }
    until("no descriptor is left over", SOON, async || descriptors() <= before).await;
    let left = children(parent);
    print(format_args!(
        "{scalings} times a worker more and one less: {before} descriptors of the parent before, {most} at most, {} \
         after; its children are {left:?}",
        descriptors()
    ));
    assert!(left.len() == 1 && left[0].1 != 'Z', "{left:?}");
    workers.stop().await;
}

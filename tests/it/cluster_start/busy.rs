//! Workers of a machine that is busy: `BUSY` seconds (6), which is longer than a worker may give no sign.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use phalanx_testkit::print;
use tokio::time::Instant;

use super::Workers;
use crate::client::get;
use crate::cluster::tasks::harness::setting;

/// Threads for each core.
const THREADS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_worker_is_replaced_while_all_cores_are_busy() {
    let busy = Duration::from_secs(setting("BUSY", 6));
    let workers = Workers::start(3, &[("PHALANX__CLUSTER__BEAT_TIMEOUT", "5s")]).await;
    let before = workers.pids().await;
    let is_over = Arc::<AtomicBool>::default();
    let cores = thread::available_parallelism().unwrap().get();
    let spin = |is_over: Arc<AtomicBool>| {
        move || {
            while !is_over.load(Relaxed) {
                std::hint::spin_loop();
            }
        }
    };
    let threads: Vec<_> = (0..cores * THREADS).map(|_| thread::spawn(spin(is_over.clone()))).collect();
    let (begin, mut slowest, mut answers) = (Instant::now(), Duration::ZERO, 0);
    while begin.elapsed() < busy {
        let sent = Instant::now();
        assert_eq!(get(workers.parent.addr, "/api/randomNumber").await.status, 200);
        (slowest, answers) = (slowest.max(sent.elapsed()), answers + 1);
    }
    is_over.store(true, Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    print(format_args!(
        "{busy:?} with {THREADS} busy threads a core: {answers} answers, the slowest after {slowest:.1?}"
    ));
    assert_eq!(workers.pids().await, before, "{}", workers.parent.stderr());
    assert!(!workers.parent.stderr().contains("is hung"), "{}", workers.parent.stderr());
    workers.stop().await;
}

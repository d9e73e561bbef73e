//! Workers all of whose threads an application blocks.

use std::fs;
use std::path::Path;

use phalanx_testkit::{Signal, check_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::deaths::until_gone;
use super::deployed::Deployed;
use super::{SECOND, Workers, runs, signal};
use crate::client::get;
use crate::cluster::until;
use crate::panics::SOON;

/// The worker that serves a connection.
async fn worker_of(stream: &mut TcpStream) -> String {
    const MARK: &str = "\"id\":\"";
    stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut input = Vec::new();
    while !input.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0, "closed");
    }
    let text = String::from_utf8(input).unwrap();
    text.split_once(MARK).unwrap().1.split_once('"').unwrap().0.to_owned()
}

/// Blocks so many threads of a worker for a minute, which are all that it has; returns the connections of the calls.
async fn block(workers: &Workers, id: &str, threads: usize) -> Vec<TcpStream> {
    let mut own = Vec::new();
    while own.len() <= threads {
        let mut stream = TcpStream::connect(workers.parent.addr).await.unwrap();
        if worker_of(&mut stream).await == id {
            own.push(stream);
        }
    }
    let (last, others) = own.split_last_mut().unwrap();
    for stream in others {
        stream.write_all(b"GET /api/blockTest?sleepDuration=60000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    until("it answers nothing", SOON, async || timeout(SECOND, worker_of(last)).await.is_err()).await;
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_threads_are_all_blocked_is_replaced() {
    const THREADS: usize = 2;
    let threads = THREADS.to_string();
    let environment = [("PHALANX__CLUSTER__BEAT_TIMEOUT", "3s"), ("PHALANX__GENERAL__THREADS", &threads)];
    let workers = Workers::start(2, &environment).await;
    let before = workers.pids().await;
    let _blocked = block(&workers, "phalanx-worker-1", THREADS).await;
    let begin = Instant::now();
    workers.until_logged("phalanx-worker-1 is hung: no beat for 3 s", 1).await;
    check_time("a beat timeout of 3 s for a worker with blocked threads", begin.elapsed(), 3 * SECOND);
    workers.until_logged("phalanx-worker-1 was ended by signal 6", 1).await;
    workers.until_ready(2).await;
    let after = workers.pids().await;
    assert_ne!(after["phalanx-worker-1"], before["phalanx-worker-1"]);
    assert_eq!(after["phalanx-worker-2"], before["phalanx-worker-2"]);
    assert_eq!(get(workers.parent.addr, "/api/randomNumber").await.status, 200);
    workers.stop().await;
}

/// The children that workers have started.
fn grandchildren(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("grandchildren")).unwrap_or_default();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_of_a_killed_parent_end_although_one_is_blocked_and_the_others_have_children() {
    let deployed = Deployed::new();
    // The child has a copy of the link to the parent: the shell gives it as stdin only from another descriptor.
    let script = "exec 3<&0\nsleep 60 <&3 3<&- &\necho $! >>grandchildren\nexec $TOUR \"$@\" 3<&-";
    deployed.add_script("with-child", script);
    let environment = [("PHALANX__GENERAL__THREADS", "1"), ("PHALANX__WEB__DRAIN", "100ms")];
    let workers = Workers::start_program(&deployed.program(), 2, &environment).await;
    deployed.switch("with-child"); // not for the start: the parent, which the script becomes, would be a tour by its name
    workers.roll().await;
    let (pids, addr) = (workers.pids().await, workers.parent.addr);
    let _blocked = block(&workers, "phalanx-worker-2", 1).await;
    let begin = Instant::now();
    workers.parent.signal(Signal::KILL);
    until_gone(&pids, addr).await;
    check_time("workers of a dead parent end, one of them blocked", begin.elapsed(), 5 * SECOND);
    let left = grandchildren(workers.parent.folder());
    assert!(left.len() == 2 && left.iter().all(|pid| runs(*pid)), "{left:?}");
    left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
}

//! Sockets of a room while workers are rolled, added, removed and killed: `ROUNDS` rolls and `KILLS` kills (1),
//! with `SOCKETS` sockets (100).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx_testkit::{Process, Signal, check_time, print};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{SECOND, Workers, signal};
use crate::client::{Socket, get};
use crate::cluster::tasks::harness::{Enqueuer, setting};
use crate::cluster::until;
use crate::panics::SOON;

pub(super) const ROOM: &str = "otherRoom";

/// The longest time until a closed socket is in its room again.
const BACK: Duration = Duration::from_secs(2);

/// How a socket was closed, and came back.
struct Return {
    code: u16,
    took: Duration,
    attempts: usize,
}

/// The sockets' side.
#[derive(Default)]
pub(super) struct Returns(Mutex<Returned>);

#[derive(Default)]
struct Returned {
    /// The sockets that are closed, and not yet in the room again.
    away: usize,
    returns: Vec<Return>,
}

impl Returns {
    /// Keeps a socket in the room.
    pub(super) async fn stay(self: Arc<Self>, addr: SocketAddr, mut socket: Socket) {
        loop {
            let code = socket.closed_at_last().await;
            self.0.lock().unwrap().away += 1;
            let (closed, mut attempts) = (Instant::now(), 0);
            socket = loop {
                attempts += 1;
                if let Ok(socket) = Socket::try_join(addr, ROOM).await {
                    break socket;
                }
            };
            let mut returned = self.0.lock().unwrap();
            returned.away -= 1;
            returned.returns.push(Return { code, took: closed.elapsed(), attempts });
        }
    }

    /// Waits until so many sockets were closed, and all are back; checks how, and forgets them. Returns their number.
    pub(super) async fn check(&self, what: &str, at_least: usize, code: u16) -> usize {
        until("all sockets are back", SOON * 2, async || {
            let returned = self.0.lock().unwrap();
            returned.away == 0 && returned.returns.len() >= at_least
        })
        .await;
        let returns = std::mem::take(&mut self.0.lock().unwrap().returns);
        let longest = returns.iter().map(|back| back.took).max().unwrap_or_default();
        let again: usize = returns.iter().map(|back| back.attempts - 1).sum();
        print(format_args!("{what}: {} sockets closed, {again} attempts to come back failed", returns.len()));
        check_time(&format!("{what}: the last socket is back in its room"), longest, BACK);
        let other: Vec<u16> = returns.iter().map(|back| back.code).filter(|other| *other != code).collect();
        assert!(other.is_empty(), "{what}: closed with {other:?}");
        returns.len()
    }
}

/// Says one numbered message after the other in the room, each over a connection of its own; returns those that were
/// accepted, and the number of the others.
async fn speak(addr: SocketAddr, name: &'static str, is_over: Arc<AtomicBool>) -> (Vec<String>, usize) {
    let (mut said, mut failed) = (Vec::new(), 0);
    for number in 0.. {
        if is_over.load(Relaxed) {
            break;
        }
        let message = format!("{name} {number}");
        let path = format!("/api/rooms/{ROOM}/say");
        match Enqueuer::new(addr).post(&path, &json!({ "message": message }), SOON).await {
            Ok((200, _)) => said.push(message),
            _ => failed += 1,
        }
        sleep(Duration::from_millis(100)).await; // the pace of the speaker: all sockets receive what it says
    }
    (said, failed)
}

/// Returns the messages that a socket receives, up to one that says `end`.
async fn listen(mut socket: Socket) -> Vec<String> {
    let mut received = Vec::new();
    loop {
        match socket.next_in("user").await["message"].as_str().unwrap() {
            "end" => return received,
            message => received.push(message.to_owned()),
        }
    }
}

/// The sockets of each worker, once their sum is that of all.
async fn sockets_of_workers(workers: &Workers, count: usize) -> Vec<(i32, usize)> {
    let mut each = Vec::new();
    until("the parent knows all sockets", SOON, async || {
        let status = workers.status().await;
        let all = status["workers"].as_array().unwrap().iter();
        each = all.map(|worker| (super::pid_of(worker), worker["sockets"].as_u64().unwrap() as usize)).collect();
        each.iter().map(|(_, sockets)| sockets).sum::<usize>() == count
    })
    .await;
    each
}

/// Prints the sockets of each worker, and checks that none has more than twice the mean.
async fn check_spread(workers: &Workers, count: usize, when: &str) {
    let each: Vec<usize> = sockets_of_workers(workers, count).await.into_iter().map(|(_, sockets)| sockets).collect();
    print(format_args!("sockets of each worker {when}: {each:?}"));
    assert!(each.iter().all(|sockets| *sockets <= 2 * count / each.len()), "{when}: {each:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_come_back_from_rolls_and_kills_and_a_member_that_stays_misses_nothing() {
    let (rounds, kills) = (setting("ROUNDS", 1), setting("KILLS", 1));
    let count = setting("SOCKETS", 100) as usize;
    let environment = [
        ("PHALANX__WEBSOCKET__UPGRADES_PER_SECOND", "0"),
        ("PHALANX__WEBSOCKET__DRAIN", "1s"),
        ("PHALANX__WEB__DRAIN", "500ms"),
    ];
    let workers = Workers::start(3, &environment).await;
    let addr = workers.parent.addr;
    let stays = Process::start("tour", &[("REDIS_URL", &workers.redis.url()), ("PHALANX_TITLE", "stays")]).await;
    let listener = tokio::spawn(listen(Socket::join(stays.addr, ROOM).await));
    let (returns, mut sockets) = (Arc::<Returns>::default(), JoinSet::new());
    for _ in 0..count {
        let socket = Socket::join(addr, ROOM).await;
        sockets.spawn(returns.clone().stay(addr, socket));
    }
    check_spread(&workers, count, "after the start").await;

    let (is_over, is_over_for_rolls) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let from_node = tokio::spawn(speak(stays.addr, "node", is_over.clone()));
    let from_workers = tokio::spawn(speak(addr, "rolled", is_over_for_rolls.clone()));
    for round in 1..=rounds as usize {
        workers.parent.signal(Signal::USR2);
        workers.until_logged("is complete", round).await;
        returns.check(&format!("roll {round}"), count, 1001).await;
        check_spread(&workers, count, &format!("after roll {round}")).await;
    }
    workers.parent.signal(Signal::TTIN);
    workers.until_ready(4).await;
    workers.parent.signal(Signal::TTOU);
    workers.until_ready(3).await;
    returns.check("a worker more and one less", 0, 1001).await;
    is_over_for_rolls.store(true, Relaxed);
    let (mut said, failed) = from_workers.await.unwrap();
    print(format_args!("messages over workers that were rolled: {} accepted, {failed} failed", said.len()));
    assert_eq!(failed, 0, "{}", workers.parent.stderr());

    let from_workers = tokio::spawn(speak(addr, "killed", is_over.clone()));
    for kill in 0..kills as usize {
        let each = sockets_of_workers(&workers, count).await;
        let (killed, on_it) = each[kill % each.len()];
        signal(killed, Signal::KILL);
        let closed = returns.check(&format!("kill {}", kill + 1), on_it, 1006).await;
        assert_eq!(closed, on_it, "the sockets of the killed worker, and no others");
        workers.until_logged("was ended by signal 9", kill + 1).await;
        workers.until_ready(3).await;
    }
    is_over.store(true, Relaxed);
    let (more, failed) = from_workers.await.unwrap();
    print(format_args!("messages over workers that were killed: {} accepted, {failed} failed", more.len()));
    assert!(failed <= kills as usize, "one is in flight at a time");
    let (of_node, failed) = from_node.await.unwrap();
    assert_eq!(failed, 0, "{}", stays.stderr());
    said.extend(more);

    let body = json!({ "message": "end" });
    Enqueuer::new(stays.addr).post(&format!("/api/rooms/{ROOM}/say"), &body, SOON).await.unwrap();
    let received = listener.await.unwrap();
    let received_of = |name: &str| received.iter().filter(|message| message.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(received_of("node"), of_node.iter().collect::<Vec<_>>());
    assert_eq!(received_of("rolled"), said.iter().filter(|said| said.starts_with("rolled")).collect::<Vec<_>>());
    let from_killed = received_of("killed");
    assert!(said.iter().filter(|said| said.starts_with("killed")).all(|said| from_killed.contains(&said)));
    assert!(from_killed.iter().enumerate().all(|(at, one)| !from_killed[..at].contains(one)), "none comes twice");
    print(format_args!("a member that stayed received {} messages", received.len()));
    let took = until("all are members", SOON, async || {
        let room = get(stays.addr, &format!("/api/rooms/{ROOM}")).await.json();
        room["membersCount"] == count // the one that stayed has left
    })
    .await;
    check_time("the members of killed workers have left", took, 8 * SECOND);
    sockets.shutdown().await;
    workers.stop().await;
}

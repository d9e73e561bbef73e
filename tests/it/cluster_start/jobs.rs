//! Jobs while their workers are rolled and killed: `ROUNDS` rolls, then `KILLS` kills (1). At least `JOBS` jobs (300)
//! come in the pauses between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use phalanx_testkit::{Redis, Signal, print};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Workers, signal};
use crate::cluster::tasks::harness::{Enqueuer, id_of, jobs_left, setting};
use crate::cluster::tasks::journal::Journal;
use crate::cluster::until;
use crate::panics::SOON;

const CLIENTS: usize = 4;

/// Time between two jobs of a client.
const PACE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Enqueued {
    accepted: AtomicUsize,
    /// Those without an answer, which may be stored.
    unknown: AtomicUsize,
    is_over: AtomicBool,
}

impl Enqueued {
    /// Enqueues jobs, each over a connection of its own; returns the ids of those that were accepted.
    async fn enqueue(self: Arc<Self>, addr: SocketAddr, client: usize) -> Vec<String> {
        let (mut ids, mut next) = (Vec::new(), Instant::now());
        for number in client.. {
            if self.is_over.load(Relaxed) {
                break;
            }
            let ms = if number % 50 == 0 { 1000 } else { number * 7 % 50 };
            let job = json!({ "name": "sleep", "input": { "ms": ms } });
            match Enqueuer::new(addr).enqueue(&job).await {
                Ok((200, answer)) => {
                    ids.push(answer["id"].as_str().unwrap().to_owned());
                    self.accepted.fetch_add(1, Relaxed);
                }
                _ => drop(self.unknown.fetch_add(1, Relaxed)),
            }
            next += PACE;
            sleep_until(next).await;
        }
        ids
    }
}

/// The strings of a reply. None may contain a line break.
async fn texts(redis: &Redis, command: &str) -> Vec<String> {
    let reply = redis.command(command).await;
    assert!(!reply.starts_with('-'), "{command}: {reply}");
    reply.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
}

/// The generation of the node that has begun last with this id.
async fn generation(redis: &Redis, id: &str) -> String {
    let records = texts(redis, "HGETALL phalanx:tour:nodes").await;
    let nodes = records.chunks(2).map(|pair| (&pair[0], serde_json::from_str::<Value>(&pair[1]).unwrap()));
    let last = nodes.filter(|(_, record)| record["id"] == id).max_by_key(|(_, record)| record["startedAt"].as_u64());
    last.unwrap_or_else(|| panic!("no {id} in {records:?}")).0.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_and_none_runs_twice_but_those_of_killed_workers() {
    let (rounds, kills, jobs) = (setting("ROUNDS", 1), setting("KILLS", 1), setting("JOBS", 300));
    let journal = Journal::new();
    let workers = Workers::start(3, &[("TOUR_JOURNAL", &journal.path()), ("PHALANX__WEB__DRAIN", "500ms")]).await;
    let redis = &workers.redis;
    let (enqueued, mut clients) = (Arc::<Enqueued>::default(), JoinSet::new());
    for client in 0..CLIENTS {
        clients.spawn(enqueued.clone().enqueue(workers.parent.addr, client));
    }
    let until_more = async |more: u64| {
        let wanted = enqueued.accepted.load(Relaxed) + more as usize;
        until("jobs are accepted", SOON * 10, async || enqueued.accepted.load(Relaxed) >= wanted).await;
    };
    let each = jobs / (rounds + kills + 2);
    for round in 1..=rounds as usize {
        until_more(each).await;
        workers.parent.signal(Signal::USR2);
        workers.until_logged("is complete", round).await;
    }
    until_more(each).await;
    assert_eq!(enqueued.unknown.load(Relaxed), 0, "a roll fails no request: {}", workers.parent.stderr());
    let after_rolls: BTreeMap<String, usize> =
        journal.read().into_iter().map(|(id, job)| (id, job.runs.len())).filter(|(_, runs)| *runs > 1).collect();
    assert!(after_rolls.is_empty(), "jobs ran twice over rolls: {after_rolls:?}");

    let mut killed = BTreeMap::new();
    for kill in 0..kills as usize {
        until_more(each).await;
        let pids = workers.pids().await;
        let (id, pid) = pids.iter().nth(kill % pids.len()).unwrap();
        let generation = generation(redis, id).await;
        signal(*pid, Signal::KILL);
        workers.until_logged("was ended by signal 9", kill + 1).await;
        let running = texts(redis, &format!("HVALS phalanx:tour:running:{generation}")).await;
        killed.insert(generation, running.iter().map(|text| id_of(text)).collect::<BTreeSet<_>>());
        workers.until_ready(3).await;
    }
    until_more(each).await;
    enqueued.is_over.store(true, Relaxed);
    let ids: BTreeSet<String> = clients.join_all().await.into_iter().flatten().collect();
    until("no job is left", SOON * 2, async || jobs_left(redis).await == 0).await;
    let is_over = || {
        journal
            .read()
            .values()
            .all(|job| job.ended("done") == 1 || { killed.contains_key(&job.runs.last().unwrap().node) })
    };
    until("the last ends are written", SOON, async || is_over()).await;

    let (lines, unknown) = (journal.read(), enqueued.unknown.load(Relaxed));
    let in_flight: usize = killed.values().map(BTreeSet::len).sum();
    let twice: Vec<_> = lines.iter().filter(|(_, job)| job.runs.len() > 1).collect();
    print(format_args!(
        "{} jobs over {rounds} rolls and {kills} kills, {unknown} enqueues without an answer; {in_flight} ran \
         on killed workers, {} ran again",
        ids.len(),
        twice.len()
    ));
    let lost: Vec<&String> = ids.iter().filter(|id| !lines.contains_key(*id)).collect();
    assert!(lost.is_empty(), "these never ran: {lost:?}");
    assert!(lines.len() - ids.len() <= unknown && unknown <= CLIENTS * kills as usize, "{} ran", lines.len());
    for (id, job) in twice {
        let deaths = killed.values().filter(|running| running.contains(id)).count();
        assert!(job.runs.len() <= 1 + deaths, "{id} ran without need; it was on {deaths} killed workers: {job:?}");
    }
    assert_eq!(redis.command("LLEN resque:failed").await, ":0\r\n");
    workers.stop().await;
}

//! A soak: seeded faults hit three nodes while members chat, and a checker reads the history of it: `just chaos`.
//!
//! `SEEDS=n` runs the seeds 1 to n (3), `SEED=s` only that one; `SECONDS=n` (180) is the time in which faults begin.
//! `FAULTS=older,kill` are the kinds of faults, none if it is empty; without it all. `HISTORY=path` checks a history
//! again. Ends with 1 if the checker finds a fault. A seed gives the faults and what members do, not the timing of the
//! machine.
//!
//! `MUTATIONS=all`, or some names, shows that the checker finds what it is for: see `mutations.rs`. `UPGRADE=commit` rolls
//! a cluster of that commit to the code as it is: see `upgrade.rs`.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use phalanx_testkit::print;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

mod builds;
mod checker;
#[path = "../it/client.rs"]
#[allow(dead_code, reason = "the whole-node tests use more of it")]
mod client;
mod clients;
mod cluster;
mod history;
mod lists;
mod mutations;
mod schedule;
mod upgrade;

use checker::Report;
use clients::{Member, Phase};
use cluster::Cluster;
use history::{Event, Record, Recorder};
use schedule::{Random, Step};

const NODES: usize = 3;

/// Members of each node; the second half of them joins, leaves and reconnects.
const MEMBERS: usize = 6;

/// All members are in the first room; the others have fewer.
const ROOMS: [&str; 3] = ["lobby", "club", "quiet"];
const PRESENCE: [&str; 2] = ["lobby", "club"];

/// After the last fault. Recovery is promised sooner.
const CALM: Duration = Duration::from_secs(45);

/// A limit for the last messages to arrive everywhere.
const LAST: Duration = Duration::from_secs(15);

/// Most faults of one kind that are printed.
const SHOWN: usize = 5;

/// One soak.
struct Soak<'a> {
    seed: u64,
    steps: Vec<Step>,
    /// The time in which faults begin.
    within: Duration,
    calm: Duration,
    /// An example, or the path of a program.
    program: &'a str,
    /// What nodes run until they are rolled, if that is another.
    old_program: Option<&'a str>,
    /// Where the history and the logs of the nodes are kept.
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Ok(names) = std::env::var("MUTATIONS") {
        return if mutations::run(&names).await { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Ok(commit) = std::env::var("UPGRADE") {
        return if upgrade::run(&commit).await { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut found = 0;
    if let Some(path) = std::env::var_os("HISTORY") {
        found += report(&history::read(Path::new(&path))).faults.len();
    } else {
        let within = Duration::from_secs(number("SECONDS").unwrap_or(180));
        let seeds = number("SEED").map_or(1..=number("SEEDS").unwrap_or(3), |seed| seed..=seed);
        let kinds = std::env::var("FAULTS").ok();
        let kinds = kinds.as_ref().map(|kinds| kinds.split(',').filter(|kind| !kind.is_empty()).collect());
        let kinds: Vec<&str> = kinds.unwrap_or_else(|| schedule::KINDS.to_vec());
        for seed in seeds {
            let folder = folder().join(format!("seed-{seed}"));
            let steps = schedule::schedule(seed, NODES, within, &kinds);
            let soak = Soak { seed, steps, within, calm: CALM, program: "tour", old_program: None, folder };
            found += soak.run().await.faults.len();
        }
    }
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks a history, and prints what was found.
fn report(records: &[Record]) -> Report {
    let report = checker::check(records);
    for kind in checker::Kind::ALL {
        for fault in report.faults_of(kind).take(SHOWN) {
            print(format_args!("  {fault}"));
        }
    }
    let mut injected: BTreeMap<&str, usize> = BTreeMap::new();
    // The faults of one step begin at the same time.
    let mut steps: Vec<(Duration, String)> = Vec::new();
    for record in records {
        let Event::Fault { kind, detail, .. } = &record.event else { continue };
        *injected.entry(kind).or_default() += 1;
        let at = Duration::from_micros(record.at);
        match steps.last_mut() {
            Some((begun, step)) if at < *begun + Duration::from_millis(5) => *step += &format!(", beside {detail}"),
            _ => steps.push((at, detail.clone())),
        }
    }
    for (number, (at, step)) in steps.iter().enumerate() {
        let next = steps.get(number + 1).map_or(Duration::MAX, |(next, _)| *next);
        let found = report.summary_of(*at, next);
        if !found.is_empty() {
            print(format_args!("  from {:.1} s, {step}: {found}", at.as_secs_f64()));
        }
    }
    let seed = records.first().map_or(0, |first| if let Event::Soak { seed, .. } = first.event { seed } else { 0 });
    let injected: Vec<String> = injected.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let injected = injected.join(", ");
    print(format_args!("seed {seed}: {} | injected: {injected} | {}", report.counts, report.summary_of_all()));
    report
}

/// `target/<profile>/soak`.
fn folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    own.ancestors().nth(2).expect("tests are in target/<profile>/deps").join("soak")
}

impl Soak<'_> {
    /// Runs it, and checks its history.
    async fn run(&self) -> Report {
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir_all(&self.folder).unwrap();
        let path = self.folder.join("history.jsonl");
        print(format_args!("seed {}: {} steps, history in {}", self.seed, self.steps.len(), path.display()));
        for step in &self.steps {
            print(format_args!("  at {step}"));
        }
        self.record(&path).await;
        report(&history::read(&path))
    }

    async fn record(&self, path: &Path) {
        let mut cluster = Cluster::start(self.program, self.old_program, &ROOMS, &PRESENCE, &self.folder).await;
        let recorder = Arc::new(Recorder::create(path));
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        recorder.record(Event::Soak { seed: self.seed, rooms: owned(&ROOMS), presence: owned(&PRESENCE) });
        let mut lists = JoinSet::new();
        for room in ROOMS {
            let addrs = (0..NODES).map(|node| cluster.addr(node)).collect();
            lists.spawn(lists::watch_list(room.to_owned(), addrs, recorder.clone()));
        }
        let phase = watch::Sender::new(Phase::Talk);
        let mut members = self.members(&cluster, &phase, &recorder);
        for step in &self.steps {
            cluster.run(step, &recorder).await;
        }
        sleep_until(recorder.started() + self.within).await; // the length of the soak
        phase.send_replace(Phase::Settle);
        sleep_until(Instant::now() + self.calm).await; // the length of the calm is what is promised
        lists.shutdown().await;
        recorder.record(Event::Calm);
        for node in 0..NODES {
            for room in ROOMS {
                let listed = cluster.members(node, room).await;
                let count = listed.as_ref().map_or(0, |(_, count)| *count);
                let members = listed.map(|(members, _)| members);
                recorder.record(Event::Listed { node, room: room.to_owned(), members, count });
            }
        }
        phase.send_replace(Phase::Last);
        let last = Instant::now();
        while last.elapsed() < LAST && !recorder.has_all_last() {
            sleep(Duration::from_millis(100)).await;
        }
        recorder.record(Event::End);
        recorder.flush();
        phase.send_replace(Phase::Over);
        while let Some(ended) = members.join_next().await {
            ended.expect("a member records, and does not panic");
        }
        cluster.keep_logs();
    }

    fn members(&self, cluster: &Cluster, phase: &watch::Sender<Phase>, recorder: &Arc<Recorder>) -> JoinSet<()> {
        let (mut members, sockets) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for number in 0..NODES * MEMBERS {
            let (node, slot) = (number % NODES, number / NODES);
            let rooms = ROOMS.iter().enumerate().filter(|(room, _)| *room == 0 || slot % 2 == *room % 2);
            let member = Member {
                node,
                addr: cluster.addr(node),
                phase: phase.subscribe(),
                rooms: rooms.map(|(_, &name)| name.to_owned()).collect(),
                is_restless: slot >= MEMBERS / 2,
                random: Random::new(self.seed.wrapping_mul(1000).wrapping_add(number as u64)),
                recorder: recorder.clone(),
                sockets: sockets.clone(),
            };
            members.spawn(member.run());
        }
        members
    }
}

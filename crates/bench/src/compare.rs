//! Runs a node and its ceiling in turn, so that other load of the machine affects both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Anyhow;
use crate::apply;
use crate::beside;
use crate::crowd;
use crate::jobs;
use crate::load::{self, Load};
use crate::process::Server;
use crate::report::Measured;
use crate::row::Row;

/// The amount of measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// The duration of one side in one round.
    pub(crate) span: Duration,
    idle_sockets: usize,
    /// The number of jobs in one round, if many run at once.
    jobs: usize,
}

impl Effort {
    /// Enough for a verdict. Rounds are many and short: other load of the machine lasts for seconds, and must affect
    /// both sides of most rounds alike.
    pub(crate) fn full(rounds: usize) -> Self {
        Self { rounds: rounds.max(1), span: Duration::from_millis(300), idle_sockets: 5000, jobs: 50_000 }
    }

    /// Enough to prove that the bench works.
    pub(crate) fn smoke() -> Self {
        Self { rounds: 1, span: Duration::from_millis(150), idle_sockets: 20, jobs: 500 }
    }
}

impl Effort {
    /// The number of jobs in one round with so many slots.
    pub(crate) fn jobs(&self, slots: usize) -> usize {
        self.jobs * slots.min(10) / 10
    }
}

/// The binary of the tour; by default the one beside this program.
pub(crate) fn tour(server: Option<PathBuf>) -> std::io::Result<PathBuf> {
    let beside = || std::env::current_exe().map(|path| path.with_file_name("tour"));
    server.map_or_else(beside, Ok)
}

/// Measures these rows.
pub(crate) async fn all(server: Option<PathBuf>, rows: &[Row], effort: Effort) -> Result<Vec<Measured>, Anyhow> {
    let binary = tour(server)?;
    let mut results = Vec::new();
    for row in rows {
        eprintln!("{} ...", row.title());
        results.push(match (row, row.ceiling()) {
            (Row::Crowd, _) => crowd::measure(*row, 2 * effort.idle_sockets, effort).await?,
            (Row::Apply1 | Row::Apply32 | Row::ApplyLocal, _) => apply::measure(&binary, *row, effort).await?,
            (Row::TasksLimited, _) => jobs::measure_limited(100, effort).await?,
            (row, _) if let Some(slots) = row.slots() => jobs::measure(*row, slots, effort).await?,
            (row, _) if let Some(beside) = row.beside() => beside::measure(*row, beside, effort).await?,
            (_, Some(_)) => pair(&binary, *row, effort).await?,
            (_, None) => idle(&binary, *row, effort).await?,
        });
    }
    Ok(results)
}

/// Measures a row with a ceiling.
async fn pair(binary: &Path, row: Row, effort: Effort) -> Result<Measured, Anyhow> {
    let ours = Server::tour(binary).await?;
    let headers = load::http::headers(ours.addr).await?;
    let kind = row.ceiling().ok_or("an idle row has no ceiling")?;
    let theirs = Server::ceiling(kind, &headers).await?;
    let mut our_load = Load::connect(row, ours.addr).await?;
    let mut their_load = Load::connect(row, theirs.addr).await?;
    alternate(row, (&ours, &mut our_load), (&theirs, &mut their_load), effort).await
}

/// Measures two loads in turn; the value is the ratio of the CPU time per operation.
pub(crate) async fn alternate(
    row: Row,
    (ours, our_load): (&Server, &mut Load),
    (theirs, their_load): (&Server, &mut Load),
    effort: Effort,
) -> Result<Measured, Anyhow> {
    our_load.run(effort.span).await?;
    their_load.run(effort.span).await?;
    let (mut values, mut our_cost, mut their_cost) = (Vec::new(), Cost::default(), Cost::default());
    for round in 0..effort.rounds {
        let (our, their);
        if round % 2 == 0 {
            our = cost(ours, our_load, effort.span).await?;
            their = cost(theirs, their_load, effort.span).await?;
        } else {
            their = cost(theirs, their_load, effort.span).await?;
            our = cost(ours, our_load, effort.span).await?;
        }
        values.push(our.each() / their.each());
        our_cost.add(our);
        their_cost.add(their);
    }
    // The total of all rounds: the median of their ratios varies more from run to run, because noise changes within a
    // round.
    let (ours, theirs) = (our_cost.each(), their_cost.each());
    Ok(Measured { value: ours / theirs, ..Measured::median(row, Some((ours, theirs)), values) })
}

/// The CPU time of a number of operations.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cpu: Duration,
    operations: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.operations += other.operations;
    }

    /// The microseconds per operation.
    fn each(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }
}

async fn cost(server: &Server, load: &mut Load, span: Duration) -> Result<Cost, Anyhow> {
    let before = server.cpu()?;
    let operations = load.run(span).await?;
    Ok(Cost { cpu: server.cpu()?.saturating_sub(before), operations })
}

/// Measures the memory of an idle socket.
async fn idle(binary: &Path, row: Row, effort: Effort) -> Result<Measured, Anyhow> {
    let server = Server::tour(binary).await?;
    // The first sockets grow shared memory: the allocator's arenas, tables, code pages.
    let _first = load::idle::Sockets::connect(server.addr, 50, row).await?;
    let before = server.resident()?;
    let sockets = load::idle::Sockets::connect(server.addr, effort.idle_sockets, row).await?;
    let grown = server.resident()?.saturating_sub(before) as f64 / sockets.len() as f64;
    Ok(Measured::median(row, None, vec![grown]))
}

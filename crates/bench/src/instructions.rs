//! The instructions of a call, compared with those of an earlier build of the tour. Valgrind counts them, so that a percent
//! shows, whatever else the machine does.

use std::path::Path;

use crate::Anyhow;
use crate::load::{Load, Target, http, socket};
use crate::process::Server;

/// The calls of a short and of a long run: what a node does besides is in both, and only their difference counts.
const CALLS: [u64; 2] = [4_096, 36_864];

/// The instructions of one call to both builds.
#[derive(Debug)]
pub(crate) struct Counted {
    transport: &'static str,
    ours: f64,
    base: f64,
}

impl Counted {
    /// Ours as a multiple of those of the earlier build.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.base
    }
}

/// Counts those of a call that uses no session, limit or group, over each transport.
pub(crate) async fn all(ours: &Path, base: &Path) -> Result<Vec<Counted>, Anyhow> {
    let mut counted = Vec::new();
    for (transport, over_websocket) in [("HTTP", false), ("WebSocket", true)] {
        let (ours, base) = (per_call(ours, over_websocket).await?, per_call(base, over_websocket).await?);
        counted.push(Counted { transport, ours, base });
    }
    Ok(counted)
}

/// The figures as lines of a table.
pub(crate) fn table(all: &[Counted]) -> String {
    let mut lines = vec![format!("{:<12} {:>12} {:>12} {:>8}", "instructions", "ours", "base", "ratio")];
    for counted in all {
        let Counted { transport, ours, base } = counted;
        lines.push(format!("{transport:<12} {ours:>12.0} {base:>12.0} {:>8.4}", counted.ratio()));
    }
    lines.join("\n")
}

async fn per_call(binary: &Path, over_websocket: bool) -> Result<f64, Anyhow> {
    let mut totals = [0; 2];
    for (total, calls) in totals.iter_mut().zip(CALLS) {
        *total = instructions(binary, over_websocket, calls).await?;
    }
    Ok((totals[1] - totals[0]) as f64 / (CALLS[1] - CALLS[0]) as f64)
}

/// The instructions of a node from its start to its end, with calls of one client one after the other.
async fn instructions(binary: &Path, over_websocket: bool, calls: u64) -> Result<u64, Anyhow> {
    let log = tempfile::NamedTempFile::new()?;
    let server = Server::tour_in_valgrind(binary, log.path()).await?;
    let echo = Target::echo();
    let mut load = if over_websocket {
        Load::Socket(socket::Clients::connect(server.addr, &echo, 1, 1).await?)
    } else {
        Load::Http(http::Clients::connect(server.addr, &echo, 1).await?)
    };
    load.call(calls).await?;
    drop(load);
    server.stop().await?;
    let text = std::fs::read_to_string(log.path())?;
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing: {text}").into())
}

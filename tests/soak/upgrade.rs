//! Rolls a cluster of an earlier commit to the code as it is, node by node, while members chat: `just upgrade`.
//!
//! Nodes of both releases are in one cluster all the time, one of each at least. The checker reads the history as that of
//! any soak: no message is lost or doubled, all members agree on one order, joins and leaves balance, lists are right.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_testkit::print;

use crate::history::{self, Event, Record};
use crate::schedule::{Fault, Step};
use crate::{NODES, Soak, builds, folder};

/// The steps: when, which node, and whether to the new release. After the second the cluster has one old node.
const STEPS: [(u64, usize, bool); 5] = [(8, 1, true), (18, 2, true), (40, 1, false), (50, 1, true), (62, 0, true)];

/// The time for which a node is stopped.
const STOPPED: Duration = Duration::from_secs(4);

const WITHIN: Duration = Duration::from_secs(80);

const CALM: Duration = Duration::from_secs(20);

/// Returns whether the checker finds nothing, and messages were received from each release by each.
pub(crate) async fn run(commit: &str) -> bool {
    let old = builds::build_commit(commit);
    let step = |(at, node, is_new)| {
        let (at, fault) = (Duration::from_secs(at), Fault::Roll { node, is_new });
        Step { at, lasts: STOPPED, fault, beside: None }
    };
    let (steps, folder) = (STEPS.map(step).into(), folder().join("upgrade"));
    let path = folder.join("history.jsonl");
    let soak = Soak { seed: 1, steps, within: WITHIN, calm: CALM, program: "tour", old_program: Some(&old), folder };
    let report = soak.run().await;
    let received = received_by_release(&history::read(&path));
    let mut is_complete = true;
    for from in [false, true] {
        for by in [false, true] {
            let count = received.get(&(from, by)).copied().unwrap_or_default();
            print(format_args!("  messages of {} nodes received by {} nodes: {count}", name(from), name(by)));
            is_complete &= count > 0;
        }
    }
    report.faults.is_empty() && is_complete
}

fn name(is_new: bool) -> &'static str {
    if is_new { "new" } else { "old" }
}

/// The messages that were received, by whether they came from a new node and were received by one.
fn received_by_release(records: &[Record]) -> BTreeMap<(bool, bool), usize> {
    let mut is_new = [false; NODES];
    let mut rolls = STEPS.iter();
    let (mut sockets, mut speakers) = (BTreeMap::new(), BTreeMap::new());
    let mut received = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::Fault { .. } => {
                let &(_, node, to) = rolls.next().expect("a fault is one of the steps");
                is_new[node] = to;
            }
            Event::Open { socket, node, .. } => drop(sockets.insert(*socket, is_new[*node])),
            Event::Say { socket, text, .. } => drop(speakers.insert(text, sockets[socket])),
            Event::Received { socket, text, .. } => {
                if let Some(from) = speakers.get(text) {
                    *received.entry((*from, sockets[socket])).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    received
}

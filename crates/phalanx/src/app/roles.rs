//! The roles that an application needs in its cluster, of which this node may leave some to others.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::Engine;
use phalanx_core::config::NodeRole;
use tokio::time::sleep;
use tracing::warn;

/// The time for other nodes to start, before this one says that a role is missing.
const OTHERS: Duration = Duration::from_secs(10);

/// The time from one look at the nodes to the next: those with a role may leave.
const NEXT_LOOK: Duration = Duration::from_secs(60);

/// Warns of roles that this application needs and no node of the cluster has: a while after the start, and when the last node
/// with one has left.
pub(super) fn warn_of_missing(engine: &Engine) {
    let own: Vec<NodeRole> = engine.config().active_roles().collect();
    let others: Vec<NodeRole> = needed(engine).filter(|role| !own.contains(role)).collect();
    if others.is_empty() {
        return;
    }
    let (node, shutdown) = (engine.node().clone(), engine.shutdown().clone());
    engine.shutdown().spawn_own(async move {
        let (mut pause, mut missing) = (OTHERS, Vec::new());
        loop {
            tokio::select! {
                () = sleep(pause) => pause = NEXT_LOOK,
                () = shutdown.requested() => return,
            }
            let Ok(nodes) = node.cluster().nodes().await else { continue };
            let had: BTreeSet<String> = nodes.into_iter().flat_map(|node| node.roles).collect();
            for role in newly_missing(&others, &had, &mut missing) {
                warn!(
                    role = role.name(),
                    "no node of this cluster has a role that the application needs: see general.roles"
                );
            }
        }
    });
}

/// The roles that no node has, without those that were missing at the last look.
fn newly_missing(needed: &[NodeRole], had: &BTreeSet<String>, missing: &mut Vec<NodeRole>) -> Vec<NodeRole> {
    let now: Vec<NodeRole> = needed.iter().copied().filter(|role| !had.contains(role.name())).collect();
    let new = now.iter().copied().filter(|role| !missing.contains(role)).collect();
    *missing = now;
    new
}

/// The roles that the definitions need.
fn needed(engine: &Engine) -> impl Iterator<Item = NodeRole> {
    let has_actions = engine.registry().actions().next().is_some();
    let has_tasks = engine.registry().tasks().next().is_some();
    let needs = [(NodeRole::Web, has_actions), (NodeRole::Worker, has_tasks), (NodeRole::Scheduler, has_tasks)];
    needs.into_iter().filter(|(_, is_needed)| *is_needed).map(|(role, _)| role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_role_is_reported_once_until_a_node_has_had_it() {
        let (needed, mut missing) = ([NodeRole::Worker, NodeRole::Scheduler], Vec::new());
        for (had, reported) in [
            (&["web", "worker"][..], &[NodeRole::Scheduler][..]),
            (&["web", "worker"], &[]),
            (&["web"], &[NodeRole::Worker]),
            (&["web", "scheduler"], &[]),
            (&["web"], &[NodeRole::Scheduler]),
        ] {
            let had = had.iter().map(|role| (*role).to_owned()).collect();
            assert_eq!(newly_missing(&needed, &had, &mut missing), reported, "{had:?}");
        }
    }
}

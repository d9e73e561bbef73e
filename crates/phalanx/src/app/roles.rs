//! The roles that an application needs in its cluster, of which this node may leave some to others.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::Engine;
use phalanx_core::config::NodeRole;
use tokio::time::sleep;
use tracing::warn;

/// The time for other nodes to start, before this one says that a role is missing.
const OTHERS: Duration = Duration::from_secs(10);

/// Warns, a while after the start, of roles that this application needs and no node of the cluster has.
pub(super) fn warn_of_missing(engine: &Engine) {
    let others = needed(engine).filter(|role| !engine.config().general.roles.contains(role)).collect::<Vec<_>>();
    if others.is_empty() {
        return;
    }
    let (node, shutdown) = (engine.node().clone(), engine.shutdown().clone());
    engine.shutdown().spawn_own(async move {
        tokio::select! {
            () = sleep(OTHERS) => {}
            () = shutdown.requested() => return,
        }
        let Ok(nodes) = node.cluster().nodes().await else { return };
        let had: BTreeSet<String> = nodes.into_iter().flat_map(|node| node.roles).collect();
        for role in others.into_iter().map(NodeRole::name).filter(|role| !had.contains(*role)) {
            warn!(role, "no node of this cluster has a role that the application needs: see general.roles");
        }
    });
}

/// The roles that the definitions need.
fn needed(engine: &Engine) -> impl Iterator<Item = NodeRole> {
    let has_actions = engine.registry().actions().next().is_some();
    let has_tasks = engine.registry().tasks().next().is_some();
    let needs = [(NodeRole::Web, has_actions), (NodeRole::Worker, has_tasks), (NodeRole::Scheduler, has_tasks)];
    needs.into_iter().filter(|(_, is_needed)| *is_needed).map(|(role, _)| role)
}

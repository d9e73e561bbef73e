//! Cleans up after nodes that died.

use futures_util::stream::{self, TryStreamExt};
use tokio::time::sleep;
use tracing::{info, warn};

use super::RENEWAL;
use crate::backend::{BackendError, Leaves, Standing};
use crate::metrics::bound_reached;
use crate::node::{Generation, Node};

/// Dead nodes that one node cleans up after at once.
const REAPED_AT_ONCE: usize = 32;

/// Leaves of one of them whose hooks run, and which are told, at once.
const TOLD_AT_ONCE: usize = 32;

/// Begins to clean up after those that lapsed, unless that is being done already. Each on a task of its own: none waits
/// for the hooks of another's members.
pub(super) fn begin(node: &Node, seen: Standing) {
    for dead in seen.lapsed {
        if !begins(node, dead) {
            continue;
        }
        let node = node.clone();
        node.shutdown().clone().spawn_own(async move {
            reap(&node, dead, seen.now_us).await;
            node.lease().reaping().remove(&dead);
        });
    }
}

/// Whether this node takes the dead on. One that there is no room for is told of again by the next renewal.
fn begins(node: &Node, dead: Generation) -> bool {
    let mut reaping = node.lease().reaping();
    if reaping.len() >= REAPED_AT_ONCE && !reaping.contains(&dead) {
        bound_reached("reaped_at_once");
        return false;
    }
    reaping.insert(dead)
}

/// Cleans up after a generation whose lease ran out, unless somebody else does.
///
/// Killed half-way, the claim lapses, and the next reaper goes on with the same list of leaves.
async fn reap(node: &Node, dead: Generation, seen_us: u64) {
    let me = node.generation();
    match node.membership().claim(me, dead, seen_us).await {
        Ok(true) => warn!(%dead, "a node died: cleaning up after it"),
        Ok(false) => return,
        Err(error) => return warn!(%error, %dead, "not cleaned up yet"),
    }
    let mut told = 0;
    loop {
        match tell_some(node, me, dead).await {
            Ok(Some(0)) => break,
            Ok(Some(count)) => told += count,
            Ok(None) => return info!(%dead, told, "another node goes on cleaning up"),
            Err(error) => return warn!(%error, %dead, told, "cleaning up stopped half-way"),
        }
    }
    metrics::counter!("phalanx_generations_reaped_total").increment(1);
    info!(%dead, leaves = told, "cleaned up");
}

/// Tells a batch of leaves; 0 when there are no more, `None` if somebody else tells them by now.
async fn tell_some(node: &Node, me: Generation, dead: Generation) -> Result<Option<usize>, BackendError> {
    let leaves = match node.membership().leaves(me, dead).await? {
        Leaves::Some(leaves) => leaves,
        Leaves::Done => return Ok(Some(0)),
        Leaves::Lost => return Ok(None),
    };
    // Many at a time: each waits for Redis, and the publisher takes many in one go.
    let telling = stream::iter(leaves.iter().map(Ok))
        .try_for_each_concurrent(TOLD_AT_ONCE, |departed| async move { node.rooms().departed(departed).await });
    let holding = async {
        loop {
            sleep(RENEWAL).await;
            if !node.membership().hold(me, dead).await.unwrap_or(true) {
                return;
            }
        }
    };
    tokio::select! {
        told = telling => told?,
        () = holding => return Ok(None),
    }
    Ok(node.membership().told(me, dead, leaves.len()).await?.then_some(leaves.len()))
}

//! Makes good what could not be done while the backend was away, or was lost with it. One pass at a time: two for
//! different reasons would undo each other's work.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::{info, warn};

use crate::backend::BackendError;
use crate::node::{Generation, Node};

/// Connections that are listed again at the same time.
const AT_ONCE: usize = 64;

/// Why the members of a node are listed again. Where neither is so, messages were missed: what is listed may have been
/// destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restoring {
    /// The backend came back empty: rooms that are gone were not destroyed.
    pub(crate) lost: bool,
    /// When the node took another name, in Unix milliseconds by the backend's clock: others may have heard its members
    /// leave before. 0 if it kept its name.
    pub(crate) renamed_ms: u64,
}

impl Restoring {
    /// Both reasons: the stronger one decides, and none is forgotten.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { lost: self.lost || other.lost, renamed_ms: self.renamed_ms.max(other.renamed_ms) }
    }
}

/// Begins a pass for `generation`, if there is something to do and nobody does it yet.
pub(super) fn begin(node: &Node, generation: Generation) {
    if !node.begins_mending() {
        return;
    }
    let node = node.clone();
    node.shutdown().clone().spawn_own(async move {
        tokio::select! {
            () = node.shutdown().closed() => {}
            () = mend(&node, generation) => {}
        }
    });
}

/// Writes and tells what could not be when it happened, and lists members that may not be listed. What is not done is begun
/// anew after the next renewal. A pass under a name that was lost meanwhile is refused by the backend, so it takes nobody
/// out of a room that is about to be made again.
async fn mend(node: &Node, generation: Generation) {
    let missed = node.rooms().takes_missed().then(Restoring::default);
    let why = node.lease().takes_restoring().or(missed);
    let mending = async {
        node.rooms().settle_leaves().await?;
        node.rooms().settle_farewells().await?;
        match why {
            Some(why) => restore(node, generation, why).await,
            None => Ok(()),
        }
    };
    if let Err(error) = mending.await {
        warn!(%error, "rooms are not as they should be yet");
        why.into_iter().for_each(|why| node.lease().is_to_restore(why));
    }
    node.ends_mending();
}

/// Lists all members of this node again.
async fn restore(node: &Node, generation: Generation, why: Restoring) -> Result<(), BackendError> {
    let rooms = node.rooms();
    if why.lost {
        for room in &node.config().rooms.start {
            let added = node.room_store().add(room, node.config().rooms.max_rooms).await;
            added.map(drop).or_else(|error| unless_of_all(error, room))?;
        }
    }
    let connections = node.connections().all();
    let count = connections.len();
    let each = stream::iter(connections).map(Ok);
    each.try_for_each_concurrent(AT_ONCE, |connection| {
        let rooms = &rooms;
        async move { rooms.restore(&connection, generation, why).await }
    })
    .await?;
    info!(connections = count, "rooms and their members are listed again");
    Ok(())
}

/// Passes over an error that is about one room alone.
pub(crate) fn unless_of_all(error: BackendError, room: &str) -> Result<(), BackendError> {
    match error {
        BackendError::Unavailable(_) | BackendError::Full => Err(error),
        BackendError::WrongKind { .. } | BackendError::Locked { .. } => {
            warn!(%error, room, "a room cannot be mended");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_reasons_the_stronger_decides_and_none_is_forgotten() {
        let missed = Restoring::default();
        let lost = Restoring { lost: true, renamed_ms: 5 };
        let found_dead = Restoring { lost: false, renamed_ms: 7 };
        for (one, other, both) in [
            (missed, found_dead, found_dead),
            (found_dead, lost, Restoring { lost: true, renamed_ms: 7 }),
            (lost, missed, lost),
        ] {
            assert_eq!(one.and(other), both);
            assert_eq!(other.and(one), both);
        }
    }
}

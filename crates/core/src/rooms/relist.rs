//! Compares the backend's list of members with what this node holds, and changes the list where they differ.
//!
//! Members are listed first, and others removed after, so no member is missing for longer than before. A connection whose
//! membership lock is taken is joining or leaving a room: in between, list and node differ for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;
use tracing::warn;

use super::Rooms;
use crate::backend::{BackendError, HeldMember, Member, RelistOutcome, Relisting, StoredMember};
use crate::connection::{Connection, JoinedRoom};
use crate::id::{ConnectionId, Generation, Incarnation};
use crate::lease_state::RecoveryRequest;
use crate::metrics::bound_reached;

/// Members that one script lists or removes.
const BATCH: usize = 200;

/// Scripts in flight. A renewal of the lease waits for those before it on the same connection.
const IN_FLIGHT: usize = 2;

/// How long a connection that joins or leaves a room is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Busy connections that are waited for at once.
const WAITED_AT_ONCE: usize = 64;

/// Members to list, and the locks of their connections.
#[derive(Default)]
struct RelistBatch {
    members: Vec<(Connection, JoinedRoom)>,
    locks: Vec<(Connection, OwnedMutexGuard<()>)>,
}

impl RelistBatch {
    /// Adds the memberships of a connection that are `wanted`.
    fn add(&mut self, connection: Connection, lock: OwnedMutexGuard<()>, mut wanted: impl FnMut(&JoinedRoom) -> bool) {
        let count = self.members.len();
        {
            let joined = connection.joined_rooms();
            if joined.closed {
                return; // it leaves all its rooms
            }
            let wanted = joined.standing().filter(|joined| wanted(joined));
            self.members.extend(wanted.map(|joined| (connection.clone(), joined.clone())));
        }
        if self.members.len() > count {
            self.locks.push((connection, lock));
        }
    }
}

/// The rooms of which a member was not listed as this node holds it.
type ChangedRooms = HashSet<Arc<str>>;

/// The incarnations of rooms of which a member is being compared: rarely more than one of a room.
#[derive(Default)]
struct SeenRooms(HashMap<Arc<str>, Vec<Incarnation>>);

impl SeenRooms {
    /// Adds the incarnation of a member's room; returns whether it is new.
    fn add(&mut self, joined: &JoinedRoom) -> bool {
        if self.0.get(&joined.room).is_some_and(|seen| seen.contains(&joined.incarnation)) {
            return false;
        }
        self.0.entry(joined.room.clone()).or_default().push(joined.incarnation);
        true
    }
}

impl Rooms {
    /// Finds rooms that were destroyed, and takes their members out.
    ///
    /// That messages were missed is no sign that the list has lost anything, which has signs of its own. So one member stands
    /// for all that joined the same incarnation of a room, and all members of a room are compared only where that one is not
    /// listed as this node holds it.
    pub(crate) async fn check_rooms(
        &self,
        connections: Vec<Connection>,
        of: Generation,
        request: RecoveryRequest,
    ) -> Result<(), BackendError> {
        let mut seen = SeenRooms::default();
        let lease = &self.0.parts.lease;
        let checked = async {
            let (_, changed) = self.compare(connections.clone(), of, request, |joined| seen.add(joined)).await?;
            if !changed.is_empty() {
                lease.request_recovery(RecoveryRequest::REMOVE);
                self.compare(connections, of, request, |joined| changed.contains(&joined.room)).await?;
            }
            Ok(())
        };
        let checked = checked.await;
        if checked.is_err() {
            // A member that stands for others may be listed again by now, and they not.
            lease.request_recovery(RecoveryRequest::RELIST);
        }
        checked
    }

    /// Lists all members of these connections where they are not listed. Returns whether all were compared: a connection that
    /// a hook blocks is left to the next pass.
    pub(crate) async fn relist_all(
        &self,
        connections: Vec<Connection>,
        of: Generation,
        request: RecoveryRequest,
    ) -> Result<bool, BackendError> {
        Ok(self.compare(connections, of, request, |_| true).await?.0)
    }

    /// Lists the `wanted` memberships of these connections where they are not listed. Returns whether all connections were
    /// compared, and the rooms that were not listed as this node holds them.
    async fn compare(
        &self,
        connections: Vec<Connection>,
        of: Generation,
        request: RecoveryRequest,
        mut wanted: impl FnMut(&JoinedRoom) -> bool + Send,
    ) -> Result<(bool, ChangedRooms), BackendError> {
        let (mut batch, mut busy) = (RelistBatch::default(), Vec::new());
        let (mut running, mut changed) = (FuturesUnordered::new(), ChangedRooms::new());
        for connection in connections {
            consume_budget().await; // where few are wanted, nothing else lets other tasks run
            let Some(lock) = connection.try_lock_membership() else {
                busy.push(connection);
                continue;
            };
            batch.add(connection, lock, &mut wanted);
            if batch.members.len() >= BATCH {
                if running.len() >= IN_FLIGHT
                    && let Some(done) = running.next().await
                {
                    changed.extend(done?);
                }
                running.push(self.relist(std::mem::take(&mut batch), of, request));
            }
        }
        running.push(self.relist(batch, of, request));
        while let Some(done) = running.next().await {
            changed.extend(done?);
        }
        drop(running);
        let mut all = true;
        let mut waiting = futures_util::stream::iter(busy)
            .map(|connection| self.relist_busy(connection, of, request))
            .buffer_unordered(WAITED_AT_ONCE);
        while let Some(compared) = waiting.next().await {
            let (is_compared, rooms) = compared?;
            all &= is_compared;
            changed.extend(rooms);
        }
        drop(waiting);
        Ok((all, changed))
    }

    /// Lists all memberships of a connection that joins or leaves a room.
    async fn relist_busy(
        &self,
        connection: Connection,
        of: Generation,
        request: RecoveryRequest,
    ) -> Result<(bool, ChangedRooms), BackendError> {
        let Ok(lock) = timeout(LOCK_WAIT, connection.lock_membership()).await else {
            bound_reached("relist_wait");
            self.0.parts.lease.request_recovery(request);
            return Ok((false, ChangedRooms::new()));
        };
        let mut batch = RelistBatch::default();
        batch.add(connection, lock, |_| true);
        Ok((true, self.relist(batch, of, request).await?))
    }

    async fn relist(
        &self,
        batch: RelistBatch,
        of: Generation,
        request: RecoveryRequest,
    ) -> Result<ChangedRooms, BackendError> {
        let mut changed = ChangedRooms::new();
        if batch.members.is_empty() {
            return Ok(changed);
        }
        let held = |(connection, joined): &(Connection, JoinedRoom)| HeldMember {
            room: joined.room.clone(),
            member: Member { id: connection.id().clone(), joined_at: joined.joined_at },
            incarnation: joined.incarnation,
        };
        let held: Vec<HeldMember> = batch.members.iter().map(held).collect();
        let number = self.next_join_number();
        let creates_rooms = request.lost || self.0.parts.interop.is_none();
        let how = Relisting { of, number, renamed_ms: request.renamed_ms, creates_rooms };
        let outcomes = match self.store().relist(&how, &held).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.give_up(number);
                return Err(error);
            }
        };
        let mut destroyed = Vec::new();
        for ((connection, joined), outcome) in batch.members.into_iter().zip(outcomes) {
            let (room, joined_at) = (&joined.room, joined.joined_at);
            if outcome == RelistOutcome::Kept(joined.incarnation) {
                continue;
            }
            if !changed.contains(room) {
                changed.insert(room.clone());
            }
            match outcome {
                RelistOutcome::Kept(now) => connection.joined_rooms().rejoin(room, joined_at, now),
                RelistOutcome::Listed(now) => {
                    record_repair("listed", 1);
                    connection.joined_rooms().rejoin(room, joined_at, now);
                }
                RelistOutcome::Rejoined(now) => {
                    let joined_at = joined_at.max(request.renamed_ms);
                    connection.joined_rooms().rejoin(room, joined_at, now);
                    // The pass announces all of them at its end.
                    self.keep_join(&JoinedRoom::new(room.clone(), joined_at, now), connection.id());
                }
                RelistOutcome::Destroyed => destroyed.push((connection, joined)),
                RelistOutcome::Elsewhere => {}
                // This node may have missed the last message.
                RelistOutcome::Closing => self.0.parts.lease.request_recovery(RecoveryRequest::CHECK_ROOMS),
                RelistOutcome::Unreadable => {
                    warn!(room = &**room, id = %connection.id(), "a room cannot be recovered")
                }
            }
        }
        drop(batch.locks);
        destroyed.into_iter().for_each(|(connection, joined)| self.leave_destroyed(connection, joined));
        Ok(changed)
    }

    /// Ends the membership of a room that was destroyed while this node missed its last message. Its hooks, which may wait,
    /// run on a task of their own.
    fn leave_destroyed(&self, connection: Connection, destroyed: JoinedRoom) {
        {
            let mut joined = connection.joined_rooms();
            if !joined.mark_destroyed(&destroyed.room, destroyed.incarnation) {
                return;
            }
            self.remove_local(&joined, &connection, &destroyed.room);
        }
        let (rooms, JoinedRoom { room, incarnation, .. }) = (self.clone(), destroyed);
        self.0.parts.shutdown.spawn(async move { rooms.finish_destroyed(&connection, &room, incarnation).await });
    }

    /// Removes the members under these generations that the node does not hold. Under earlier ones it holds none once all
    /// are listed under the present one.
    pub(super) async fn remove_unheld(&self, generations: &[Generation], all_listed: bool) -> Result<(), BackendError> {
        let current = self.0.parts.identity.generation();
        let floor = self.0.given_up.swap(0, Relaxed);
        if floor > 0
            && let Err(error) = self.store().remove_stored(current, floor, &[]).await
        {
            self.give_up(floor);
            return Err(error);
        }
        for &of in generations {
            let mut start = 0;
            loop {
                start = self.remove_unheld_step(of, start, !all_listed || of == current).await?;
                if start == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The same for one step through the stored memberships, of which the node `may_hold` some; returns the start of the
    /// next.
    pub(crate) async fn remove_unheld_step(
        &self,
        of: Generation,
        start: u64,
        may_hold: bool,
    ) -> Result<u64, BackendError> {
        let (stored, next) = self.store().stored(of, start).await?;
        let unheld: Vec<StoredMember> =
            stored.into_iter().filter(|stored| !(may_hold && self.may_hold(stored))).collect();
        let mut running = FuturesUnordered::new();
        for batch in unheld.chunks(BATCH) {
            if running.len() >= IN_FLIGHT
                && let Some(removed) = running.next().await
            {
                record_repair("removed", removed?);
            }
            running.push(self.store().remove_stored(of, 0, batch));
        }
        while let Some(removed) = running.next().await {
            record_repair("removed", removed?); // fewer than were read, if some have left since
        }
        Ok(next)
    }

    /// Whether this node holds a membership, or its connection joins or leaves a room now.
    fn may_hold(&self, stored: &StoredMember) -> bool {
        let Some(connection) = self.0.parts.registry.find(&stored.id) else { return false };
        let Some(_lock) = connection.try_lock_membership() else { return true };
        let joined = connection.joined_rooms();
        joined.find(&stored.room).is_some_and(|joined| joined.joined_at == stored.joined_at)
    }

    /// The connections of this node with these ids.
    pub(crate) fn find_all(&self, ids: &[ConnectionId]) -> Vec<Connection> {
        ids.iter().filter_map(|id| self.0.parts.registry.find(id)).collect()
    }
}

/// Counts entries of the list that were not as the node holds them.
fn record_repair(kind: &'static str, count: u64) {
    metrics::counter!("phalanx_memberships_repaired_total", "kind" => kind).increment(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_of_each_incarnation_of_a_room_is_new() {
        let mut seen = SeenRooms::default();
        let mut is_new = |room: &str, joined_at, incarnation| {
            seen.add(&JoinedRoom::new(room.into(), joined_at, Incarnation(incarnation)))
        };
        for (room, incarnation, expected) in
            [("a", 1, true), ("b", 1, true), ("a", 1, false), ("a", 2, true), ("a", 1, false), ("a", 2, false)]
        {
            assert_eq!(is_new(room, 7, incarnation), expected, "{room} {incarnation}");
        }
    }
}

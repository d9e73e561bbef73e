//! Delivers publications to the members of rooms on this node.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::{Delivery, LocalRoom, RoomPoint, Rooms};
use crate::backend::{Publication, PublicationKind};
use crate::connection::{Connection, Frame};
use crate::protocol::{PresenceChange, RoomMessage};

impl Rooms {
    /// Hands a publication to the room's members on this node. Never waits.
    pub(crate) fn deliver(&self, publication: &Publication) {
        match publication.kind {
            PublicationKind::Message => {
                self.end_in_flight(publication);
                let Some(local) = self.local(&publication.room) else { return };
                if self.callbacks().has(RoomPoint::Deliver) {
                    self.deliver_one_by_one(&local, publication);
                } else {
                    self.deliver_to_all(&local, &publication.payload);
                }
            }
            PublicationKind::Joined(at) => self.deliver_presence(publication, (at, false)),
            PublicationKind::Left(at) => self.deliver_presence(publication, (at, true)),
            PublicationKind::Joins => self.deliver_list(publication, PresenceChange::Join),
            PublicationKind::Leaves => self.deliver_list(publication, PresenceChange::Leave),
            PublicationKind::Destroyed(incarnation) => {
                self.0.destroyed.fetch_add(1, Relaxed); // before the look-up of members, see `enter`
                if let Some(local) = self.local(&publication.room) {
                    self.evict_members(&local, publication, incarnation);
                }
            }
        }
    }

    /// The sender's message is in flight no longer, if the sender is a connection of this node.
    fn end_in_flight(&self, publication: &Publication) {
        if let Some(sender) = &publication.connection
            && let Some(sender) = self.0.parts.registry.find(sender)
        {
            sender.on_delivered();
        }
    }

    /// Queues a frame for all members of a room on this node.
    pub(super) fn deliver_to_all(&self, local: &LocalRoom, frame: &Bytes) {
        let (wakes, count) = {
            let mut members = local.members();
            (members.deliver(frame), members.len())
        };
        self.metrics().room_deliveries.increment(count as u64);
        if let Some(wakes) = wakes {
            self.0.parts.shutdown.spawn_own(wakes.run());
        }
    }

    /// Runs the `before_deliver` hooks, without any lock, so that they may look at connections and rooms; a member that has left
    /// meanwhile is skipped.
    fn deliver_one_by_one(&self, local: &LocalRoom, publication: &Publication) {
        let Some(message) = RoomMessage::from_payload(&publication.payload) else { return };
        let recipients: Vec<Connection> = {
            let mut members = local.members();
            members.begin_frame();
            members.all().cloned().collect()
        };
        for member in &recipients {
            let payload = match self.callbacks().before_deliver(member, &message) {
                Delivery::Unchanged => publication.payload.clone(),
                Delivery::Replace(other) => other.to_payload(),
                Delivery::Drop => continue,
            };
            let members = local.members();
            if members.contains(member) {
                member.push(Frame::Text(payload));
                self.metrics().room_deliveries.increment(1);
            }
        }
    }
}

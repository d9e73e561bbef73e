//! The task that takes items off the bus and hands each to its subject.

use std::sync::Arc;

use tracing::warn;

use super::Engine;
use crate::backend::{GapCause, Incoming, NodeMessage, NodeMessageKind};
use crate::event::Event;
use crate::id::Generation;

/// Items that are delivered before other tasks run: a burst must not evict healthy connections.
const BATCH: usize = 128;

impl Engine {
    /// Delivers items from the bus, and yields between batches.
    pub(super) fn spawn_delivery(&self) {
        let Some(mut items) = self.parts().bus.receiver() else { return };
        let engine = self.clone();
        self.shutdown().spawn_own(async move {
            let mut batch: Vec<Incoming> = Vec::with_capacity(BATCH);
            loop {
                tokio::select! {
                    () = engine.shutdown().closed() => break,
                    count = items.recv_many(&mut batch, BATCH) => if count == 0 { break },
                }
                engine.parts().metrics.bus_depth.set(items.len() as f64);
                batch.drain(..).for_each(|item| engine.receive(item));
                tokio::task::yield_now().await;
            }
        });
    }

    fn receive(&self, item: Incoming) {
        match item {
            Incoming::Publication(publication) => self.rooms().deliver(&publication),
            Incoming::NodeMessage(from, message) => self.receive_message(from, message),
            Incoming::TagMessage(from, message) => self.parts().tags.receive(from, message),
            Incoming::SessionChanged(tag) => self.parts().tags.receive_session(tag),
            Incoming::InteropCall(call) => self.parts().call_server.receive_interop_call(call),
            Incoming::Away => self.parts().calls.fail_all(),
            Incoming::StillAway => {
                warn!("no messages of rooms arrive: their members are notified");
                self.rooms().send_away();
            }
            Incoming::Gap(room, cause) => self.receive_gap(room, cause),
            Incoming::TagGap(tag, cause) => self.parts().tags.receive_gap(tag, cause),
        }
    }

    fn receive_message(&self, from: Generation, message: NodeMessage) {
        match message.kind {
            NodeMessageKind::Reply => self.parts().calls.receive_reply(from, message),
            // A call of all nodes, which this one has executed already.
            NodeMessageKind::Call if self.parts().identity.is_own(from) => {}
            NodeMessageKind::Call => self.parts().call_server.receive_call(from, message),
            NodeMessageKind::Topic => self.parts().topics.deliver(&message.payload),
        }
    }

    fn receive_gap(&self, room: Option<Arc<str>>, cause: GapCause) {
        if let Some(room) = room {
            // With the loss of the subscription, which is counted once, each room has a gap.
            self.parts().metrics.bus_gaps.increment(u64::from(cause == GapCause::Overflow));
            self.rooms().send_gap(&room);
        } else {
            self.parts().metrics.bus_gaps.increment(1);
            warn!(?cause, "messages of other nodes may have been missed");
            self.rooms().reset_in_flight();
            self.parts().topics.send_gaps();
            self.registry().observers.notify(&Event::BusGap(cause));
        }
        self.rooms().record_missed_messages();
    }
}

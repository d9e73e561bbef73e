//! Every metric of the domain: name, help text, and cached handles for the hot paths.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::backend::BatchStage;
use crate::error::ErrorKind;

/// Counts a refusal, a drop or a delay because a bound was reached. `bound` names the bound: by its
/// setting where there is one.
pub fn bound_reached(bound: &'static str) {
    counter!("phalanx_bound_reached_total", "bound" => bound).increment(1);
}

/// Counts sessions that a backend found expired.
pub fn record_expired_sessions(count: u64) {
    if count > 0 {
        counter!("phalanx_sessions_expired_total").increment(count);
    }
}

/// Counts batches that ended by a call of this node. Each end is one step of one call, so it is counted on one node.
pub fn record_batch_ends(stage: BatchStage, count: u64) {
    if count > 0 {
        counter!("phalanx_tasks_batches_total", "end" => stage.as_str()).increment(count);
    }
}

/// The end of a call, as metrics and logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer.
    Answered,
    /// With an error.
    Refused(ErrorKind),
    /// Dropped before its end: the client left, or the node stopped.
    Cancelled,
}

impl CallEnd {
    const COUNT: usize = ErrorKind::ALL.len() + 2;

    /// Returns `ok`, `cancelled`, or the name of the error's kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Refused(kind) => kind.code(),
            Self::Cancelled => "cancelled",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Cancelled => 1,
            Self::Refused(kind) => 2 + kind as usize,
        }
    }
}

/// Counts a message between nodes that was dropped.
pub(crate) fn record_drop(reason: &'static str) {
    counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}

/// The handles of one action, each looked up on first use.
pub(crate) struct ActionMetrics {
    name: &'static str,
    version: u32,
    endings: [OnceLock<Counter>; CallEnd::COUNT],
    duration: OnceLock<Histogram>,
    body_wait: OnceLock<Histogram>,
}

impl ActionMetrics {
    pub(crate) fn new(name: &'static str, version: u32) -> Self {
        let endings = [const { OnceLock::new() }; CallEnd::COUNT];
        Self { name, version, endings, duration: OnceLock::new(), body_wait: OnceLock::new() }
    }

    /// Counts a call that took so long, and before that awaited its body for `waited`.
    pub(crate) fn record(&self, ending: CallEnd, took: Duration, waited: Duration) {
        let version = || self.version.to_string();
        self.endings[ending.index()]
            .get_or_init(|| {
                counter!("phalanx_actions_total", "action" => self.name, "version" => version(), "outcome" => ending.as_str())
            })
            .increment(1);
        self.duration
            .get_or_init(
                || histogram!("phalanx_action_duration_seconds", "action" => self.name, "version" => version()),
            )
            .record(took);
        if !waited.is_zero() {
            self.body_wait
                .get_or_init(
                    || histogram!("phalanx_action_body_seconds", "action" => self.name, "version" => version()),
                )
                .record(waited);
        }
    }
}

/// The handles of a node's connections and rooms.
pub(crate) struct NodeMetrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) room_messages: Counter,
    pub(crate) room_deliveries: Counter,
    pub(crate) room_dropped: Counter,
    pub(crate) tags: Gauge,
    pub(crate) tag_messages: Counter,
    pub(crate) tag_received: Counter,
    pub(crate) tag_deliveries: Counter,
    pub(crate) tag_missing: Counter,
    pub(crate) bus_depth: Gauge,
    pub(crate) bus_gaps: Counter,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        describe();
        // Present from the start, so that a rate over it sees the first panic.
        counter!("phalanx_hook_panics_total").absolute(0);
        Self {
            connections: gauge!("phalanx_connections"),
            connections_total: counter!("phalanx_connections_total"),
            room_messages: counter!("phalanx_room_messages_total"),
            room_deliveries: counter!("phalanx_room_deliveries_total"),
            room_dropped: counter!("phalanx_room_messages_dropped_total"),
            tags: gauge!("phalanx_tags"),
            tag_messages: counter!("phalanx_tag_messages_total"),
            tag_received: counter!("phalanx_tag_received_total"),
            tag_deliveries: counter!("phalanx_tag_deliveries_total"),
            tag_missing: counter!("phalanx_tag_replies_missing_total"),
            bus_depth: gauge!("phalanx_bus_queue_messages"),
            bus_gaps: counter!("phalanx_bus_gaps_total"),
        }
    }
}

fn describe() {
    describe_counter!(
        "phalanx_bound_reached_total",
        "Requests, messages and connections refused, dropped or delayed at a bound, by bound"
    );
    describe_counter!("phalanx_actions_total", "Calls of actions, by action, version and outcome");
    describe_histogram!(
        "phalanx_action_duration_seconds",
        "Time from a call's start to its outcome, without that for its body"
    );
    describe_histogram!(
        "phalanx_action_body_seconds",
        "Time for which a call awaited its body; calls whose body was there are not in it"
    );
    describe_gauge!("phalanx_connections", "Open sockets of this node");
    describe_counter!("phalanx_connections_total", "Sockets opened on this node");
    describe_counter!(
        "phalanx_connections_closed_total",
        "Sockets closed, by reason; slow_reader is an outbox over its bound"
    );
    describe_counter!("phalanx_room_messages_total", "Messages published to rooms by this node");
    describe_counter!("phalanx_room_deliveries_total", "Messages queued for members on this node");
    describe_counter!("phalanx_room_messages_dropped_total", "Messages that a hook dropped");
    describe_gauge!("phalanx_task_waiters", "Callers on this node that wait for the ends of jobs");
    describe_counter!("phalanx_tasks_batches_total", "Batches that ended by a call of this node, by end");
    describe_gauge!("phalanx_tags", "Tags that connections of this node have");
    describe_counter!("phalanx_tag_messages_total", "Messages sent to tags by this node");
    describe_counter!("phalanx_tag_received_total", "Messages to tags and calls of them received from other nodes");
    describe_counter!("phalanx_tag_deliveries_total", "Messages to tags queued for connections on this node");
    describe_counter!("phalanx_tag_replies_missing_total", "Nodes that did not reply to a call of a tag in time");
    describe_gauge!(
        "phalanx_bus_queue_messages",
        "Messages waiting for delivery on this node, at most rooms.bus_queue"
    );
    describe_gauge!("phalanx_bus_channels", "Channels that this node is subscribed to");
    describe_counter!("phalanx_bus_gaps_total", "Times that messages of other nodes may have been missed");
    describe_counter!("phalanx_bus_dropped_total", "Messages of other nodes that were dropped, by reason");
    describe_gauge!("phalanx_lease_fenced", "1 while this node cannot rely on its lease");
    describe_gauge!("phalanx_cluster_nodes", "Nodes of the cluster, as seen by this node");
    describe_counter!("phalanx_generations_reaped_total", "Dead generations that this node reaped");
    describe_counter!(
        "phalanx_memberships_repaired_total",
        "Entries of the lists of members that differed from what this node holds, by kind"
    );
    describe_counter!("phalanx_backend_losses_total", "Times that the backend returned without its data");
    describe_counter!("phalanx_hook_panics_total", "Panics in hooks and observers of the application");
}

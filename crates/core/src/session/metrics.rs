//! Counters of a node's sessions.

use metrics::{counter, describe_counter};

pub(super) fn describe() {
    describe_counter!("phalanx_sessions_created_total", "Sessions that this node created");
    describe_counter!("phalanx_sessions_renewed_total", "Sessions to which this node gave a new id");
    describe_counter!("phalanx_sessions_ended_total", "Sessions that this node ended, copies of renewed ones included");
    describe_counter!(
        "phalanx_sessions_ended_again_total",
        "Ended sessions that the backend had again, and that were ended again"
    );
    describe_counter!("phalanx_sessions_expired_total", "Expired sessions that this node came across");
    describe_counter!("phalanx_sessions_undecodable_total", "Reads of sessions whose value does not decode");
    describe_counter!("phalanx_sessions_refused_total", "Writes of sessions that were refused, by reason");
}

pub(super) fn record_created() {
    counter!("phalanx_sessions_created_total").increment(1);
}

pub(super) fn record_renewed() {
    counter!("phalanx_sessions_renewed_total").increment(1);
}

pub(super) fn record_ended(count: usize) {
    if count > 0 {
        counter!("phalanx_sessions_ended_total").increment(count as u64);
    }
}

pub(super) fn record_ended_again(count: usize) {
    if count > 0 {
        counter!("phalanx_sessions_ended_again_total").increment(count as u64);
    }
}

pub(super) fn record_undecodable() {
    counter!("phalanx_sessions_undecodable_total").increment(1);
}

pub(super) fn record_refusal(reason: &'static str) {
    counter!("phalanx_sessions_refused_total", "reason" => reason).increment(1);
}

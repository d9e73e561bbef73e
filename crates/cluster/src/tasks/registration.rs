//! The node as one of resque's workers, for its tools.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::WorkerCall;
use phalanx_core::job::worker_name;
use serde_json::json;
use tokio::time::Instant;
use tracing::debug;

use super::RedisTasks;

/// How often the ping is renewed.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long it lasts.
const PING_TTL: Duration = Duration::from_secs(60);

/// Something that a node does again and again under each of its generations.
#[derive(Debug)]
pub(super) struct Repeated {
    interval: Duration,
    last: Mutex<Option<(Generation, Instant)>>,
}

impl Repeated {
    pub(super) fn every(interval: Duration) -> Self {
        Self { interval, last: Mutex::default() }
    }

    /// Whether it is to be done now.
    pub(super) fn is_due(&self, generation: Generation) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|(of, at)| of == generation && at.elapsed() < self.interval) {
            return false;
        }
        *last = Some((generation, Instant::now()));
        true
    }
}

impl RedisTasks {
    /// Registers the node that calls. Nothing but what tools show depends on it.
    pub(super) async fn register(&self, call: &WorkerCall<'_>) {
        let (keys, name, queues) = (&self.keys, worker_name(&self.node, call.generation), call.queues.join(","));
        let ping = json!({ "name": name, "queues": queues }).to_string();
        let mut script = self.scripts.register.call(&[
            keys.unused(),
            keys.leases(),
            keys.workers(),
            keys.worker(),
            keys.worker_ping(),
        ]);
        script.arg(call.generation.as_str()).arg(&name).arg(&queues).arg(PING_TTL.as_secs());
        script.arg(r#"{"time":"#).arg([",", &ping[1..]].concat());
        let registered = async { script.run::<u64>(&*self.own.client().await?).await };
        if let Err(error) = registered.await {
            debug!(%error, "this node is not among the workers that resque tools show");
        }
    }
}

//! The node as one of resque's workers, for its tools.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, WorkerSign};
use phalanx_core::job::worker_name;
use serde_json::json;
use tokio::time::Instant;

use super::RedisTasks;

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
    /// Registers a node. Returns the cluster that uses this prefix if it is not the node's.
    pub(super) async fn register_worker(&self, sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError> {
        let (keys, name, queues) = (&self.keys, worker_name(&self.node, sign.generation), sign.queues.join(","));
        let ping = json!({ "name": name, "queues": queues }).to_string();
        let mut script = self.scripts.register.call(&[
            keys.unused(),
            keys.leases(),
            keys.workers(),
            keys.worker(),
            keys.worker_ping(),
            keys.prefix_owner(),
        ]);
        script.arg(sign.generation.as_str()).arg(&name).arg(&queues).arg(PING_TTL.as_secs());
        script.arg(r#"{"time":"#).arg([",", &ping[1..]].concat());
        script.arg(keys.cluster()).arg(sign.working_on.unwrap_or_default());
        let cluster: Option<String> = script.run(&*self.own.client().await?).await?;
        // Without a lease nothing was said about the prefix, which may be another cluster's.
        let cluster = cluster.ok_or_else(|| BackendError::unavailable("the node has no lease"))?;
        Ok(Some(cluster).filter(|cluster| cluster != keys.cluster()))
    }

    pub(super) async fn unregister_worker(&self, of: Generation) -> Result<(), BackendError> {
        let keys = &self.keys;
        let all = [keys.unused(), keys.workers(), keys.worker(), keys.worker_ping()];
        let mut script = self.scripts.remove_worker.call(&all);
        script.arg(of.as_str()).run::<u64>(&*self.own.client().await?).await.map(drop)
    }
}

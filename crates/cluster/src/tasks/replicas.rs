//! Replicas that have a job before its enqueue is answered.

use deadpool_redis::redis::{Pipeline, Value, pipe};
use phalanx_core::backend::BackendError;
use tracing::warn;

use super::RedisTasks;
use super::call::ScriptCall;
use super::own_connection::OwnConnection;

/// How long the mark is kept whose write is waited for.
const MARK_MS: u64 = 60_000;

/// Has enqueues wait for replicas. Redis serves nothing else of a connection that waits, so they have one of their own.
pub(super) struct ReplicaWait {
    wanted: usize,
    connection: OwnConnection,
}

impl ReplicaWait {
    pub(super) fn by(wanted: usize, connection: OwnConnection) -> Self {
        Self { wanted, connection }
    }
}

impl RedisTasks {
    /// Has an enqueue answered only once so many replicas of Redis have it; zero: the answer waits for none.
    #[must_use]
    pub fn confirmed_by(self, replicas: usize) -> Self {
        let connection = || OwnConnection::beside(self.shared.clone(), self.keys.clone());
        let confirmation = (replicas > 0).then(|| ReplicaWait::by(replicas, connection()));
        Self { confirmation, ..self }
    }

    /// Runs the script of an enqueue.
    pub(super) async fn run_enqueue(&self, call: &ScriptCall<'_>) -> Result<Value, BackendError> {
        let Some(ReplicaWait { wanted, connection }) = &self.confirmation else {
            return call.run(&*self.own.client().await?).await;
        };
        let wanted = *wanted;
        let client = connection.client().await?;
        let (reply, answer): (Value, Result<(u64,), _>) = call.run_and(&client, &self.wait_for(wanted)).await?;
        let confirmed = answer.map_or_else(
            |error| {
                warn!(%error, "replicas cannot be waited for");
                0
            },
            |(confirmed,)| confirmed,
        );
        if confirmed < wanted as u64 {
            return Err(BackendError::NotReplicated { confirmed, wanted });
        }
        Ok(reply)
    }

    /// A job that was stored before, perhaps over another connection, is confirmed only by a write that comes after it.
    fn wait_for(&self, wanted: usize) -> Pipeline {
        let patience = self.shared.timeout() / 2;
        let mut commands = pipe();
        commands.cmd("SET").arg(self.keys.replicated()).arg(1).arg("PX").arg(MARK_MS).ignore();
        commands.cmd("WAIT").arg(wanted).arg((patience.as_millis() as u64).max(1));
        commands
    }
}

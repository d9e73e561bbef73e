//! A guest of the cluster: it uses what the nodes share and calls them, and is none of them.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::Engine;
use super::lifecycle::StartError;
use super::setup::NodeSetup;
use crate::answer::Outcome;
use crate::backend::{Incoming, NodeMessageKind};
use crate::dispatch;
use crate::initializer::Initializer;
use crate::node::Node;
use crate::params::Params;
use crate::registry::Registry;

/// A program that looks into a cluster, such as a command for operators.
///
/// It has an inbox for the replies of nodes, and no lease: nodes do not list it, call it, or reap it. Of the application it
/// runs the preparation of initializers, which may add actions and tasks, and what its user calls.
#[derive(Debug)]
pub struct Guest {
    engine: Engine,
    initializers: Vec<Arc<dyn Initializer>>,
}

impl Engine {
    /// Enters a cluster as a guest. The transports of `setup` are not started, nor are initializers.
    ///
    /// # Errors
    ///
    /// The definitions do not fit together, an initializer failed to prepare, or the backend does not answer: it is not
    /// tried again.
    pub async fn visit(setup: NodeSetup) -> Result<Guest, StartError> {
        let (engine, initializers) = Self::prepare(setup).await?;
        let guest = Guest { engine, initializers };
        match guest.enter().await {
            Ok(()) => Ok(guest),
            Err(error) => {
                guest.engine.shutdown().close().await;
                Err(error)
            }
        }
    }
}

impl Guest {
    async fn enter(&self) -> Result<(), StartError> {
        let parts = self.engine.parts();
        // The list of nodes comes with the time, and says which form of messages all of them read.
        parts.membership.nodes().await.map_err(StartError::Backend)?;
        self.spawn_delivery();
        parts.bus.open_inbox(parts.identity.generation()).await.map_err(StartError::Backend)
    }

    /// Takes replies off the bus. Calls and messages are for nodes.
    fn spawn_delivery(&self) {
        let Some(mut items) = self.engine.parts().bus.receiver() else { return };
        let engine = self.engine.clone();
        self.engine.shutdown().spawn_own(async move {
            loop {
                let item = tokio::select! {
                    () = engine.shutdown().closed() => break,
                    item = items.recv() => item,
                };
                match item {
                    Some(Incoming::NodeMessage(from, message)) if message.kind == NodeMessageKind::Reply => {
                        engine.parts().calls.receive_reply(from, message);
                    }
                    Some(Incoming::Away) => engine.parts().calls.fail_all(),
                    Some(_) => {}
                    None => break,
                }
            }
        });
    }

    /// The handle on what the nodes share.
    pub fn node(&self) -> &Node {
        self.engine.node()
    }

    /// The application's definitions.
    pub fn registry(&self) -> &Registry {
        self.engine.registry()
    }

    /// Starts the application's initializers, which its actions may need. They are stopped when the guest leaves.
    ///
    /// # Errors
    ///
    /// The error of the first that fails.
    pub async fn start_initializers(&self) -> Result<(), StartError> {
        self.engine.start_initializers(&self.initializers).await?;
        self.engine.parts().health.set(&[]);
        Ok(())
    }

    /// Calls an action in this process, `internal` ones as well.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub async fn call(&self, name: &str, version: Option<u32>, params: Params) -> Outcome {
        dispatch::call_internal(&self.engine, name, version, params).await
    }

    /// Leaves the cluster: nothing of the guest stays in the backend. Initializers that were started are stopped within
    /// `general.grace`.
    pub async fn leave(self) {
        let parts = self.engine.parts();
        self.engine.stop_initializers(Instant::now() + self.engine.config().general.grace).await;
        self.engine.shutdown().close().await;
        if let Err(error) = parts.membership.leave(parts.identity.generation()).await {
            debug!(%error, "the number of a guest's connection stays in the backend");
        }
    }
}

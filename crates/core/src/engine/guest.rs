//! A guest of the cluster: it uses what the nodes share and calls them, and is none of them.

use tracing::debug;

use super::Engine;
use super::lifecycle::StartError;
use super::setup::NodeSetup;
use crate::backend::{Incoming, NodeMessageKind};
use crate::node::Node;

/// A program that looks into a cluster, such as a command for operators.
///
/// It has an inbox for the replies of nodes, and no lease: nodes do not list it, call it, or reap it, and it runs nothing of
/// the application but the preparation of initializers, which may add tasks.
#[derive(Debug)]
pub struct Guest(Engine);

impl Engine {
    /// Enters a cluster as a guest. The transports of `setup` are not started, nor are initializers.
    ///
    /// # Errors
    ///
    /// The definitions do not fit together, an initializer failed to prepare, or the backend does not answer: it is not
    /// tried again.
    pub async fn visit(setup: NodeSetup) -> Result<Guest, StartError> {
        let (engine, _) = Self::prepare(setup).await?;
        let guest = Guest(engine);
        match guest.enter().await {
            Ok(()) => Ok(guest),
            Err(error) => {
                guest.0.shutdown().close().await;
                Err(error)
            }
        }
    }
}

impl Guest {
    async fn enter(&self) -> Result<(), StartError> {
        let parts = self.0.parts();
        // The list of nodes comes with the time, and says which form of messages all of them read.
        parts.membership.nodes().await.map_err(StartError::Backend)?;
        self.spawn_delivery();
        parts.bus.open_inbox(parts.identity.generation()).await.map_err(StartError::Backend)
    }

    /// Takes replies off the bus. Calls and messages are for nodes.
    fn spawn_delivery(&self) {
        let Some(mut items) = self.0.parts().bus.receiver() else { return };
        let engine = self.0.clone();
        self.0.shutdown().spawn_own(async move {
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
        self.0.node()
    }

    /// Leaves the cluster: nothing of the guest stays in the backend.
    pub async fn leave(self) {
        let parts = self.0.parts();
        self.0.shutdown().close().await;
        if let Err(error) = parts.membership.leave(parts.identity.generation()).await {
            debug!(%error, "the number of a guest's connection stays in the backend");
        }
    }
}

//! The connection of workers' calls: they keep no other command waiting.
//!
//! It is opened after the shared one has answered a write, and again when that is replaced; see
//! [`failover`](crate::failover). One that only followed the number could be open before the next shared connection is, and
//! stay at an old server while that one leads to the new.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::backend::BackendError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::client::RedisClient;
use crate::failover;
use crate::keys::Keys;

pub(super) struct OwnConnection {
    shared: RedisClient,
    keys: Keys,
    /// Whether it is on the runtime of its first command instead of that of the shared one.
    is_local: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    client: Arc<RedisClient>,
    /// The number of the shared connection that it belongs to.
    number: watch::Receiver<u64>,
}

impl OwnConnection {
    pub(super) fn beside(shared: RedisClient, keys: Keys) -> Self {
        Self { shared, keys, is_local: false, current: Mutex::default() }
    }

    /// A connection of the worker alone, on its runtime: a reply needs no hand-over between threads.
    pub(super) fn of_worker(shared: RedisClient, keys: Keys) -> Self {
        Self { is_local: true, ..Self::beside(shared, keys) }
    }

    /// A client that leads to the server of the shared connection. Calls that come while there is none wait side by side: in
    /// turn, each would wait for the timeouts of those before it.
    pub(super) async fn client(&self) -> Result<Arc<RedisClient>, BackendError> {
        if let Some(client) = current(&self.lock()) {
            return Ok(client);
        }
        let number = failover::anchor(&self.shared, &self.keys).await?;
        let mut slot = self.lock();
        if let Some(client) = current(&slot) {
            return Ok(client);
        }
        let home = if self.is_local { Handle::try_current().ok() } else { self.shared.home() };
        let client = Arc::new(self.shared.apart(home));
        *slot = Some(Current { client: client.clone(), number });
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn current(slot: &Option<Current>) -> Option<Arc<RedisClient>> {
    let Current { client, number } = slot.as_ref()?;
    (!number.has_changed().unwrap_or(false)).then(|| client.clone())
}

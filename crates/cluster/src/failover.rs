//! Finds the right server when Redis refuses as only a wrong one does: the address was moved to another server, and the
//! old one left the connections open.
//!
//! All connections of the node are then connections to the old server. Only when a new one was accepted by a server that
//! takes writes, they are made anew, all at once: members get one gap, and none for each attempt.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use deadpool_redis::redis::{RedisError, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::client::RedisClient;
use crate::keys::Keys;

/// The shortest and the longest pause between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// For this long after a move refusals may be those of the old server that arrive late.
const LATE_REFUSALS: Duration = Duration::from_secs(1);

/// The suspicion that the connections lead to a wrong server, and the moves to the right one.
#[derive(Debug, Default)]
pub(crate) struct Failover {
    is_suspected: AtomicBool,
    suspicion: Notify,
    moves: watch::Sender<u64>,
}

impl Failover {
    /// Has the right server searched, unless that is in progress.
    pub(crate) fn suspect(&self) {
        if !self.is_suspected.swap(true, Relaxed) {
            self.suspicion.notify_one();
        }
    }

    /// Counts the moves. A connection that was opened before the last one is to be replaced.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }
}

/// Completes with an error once the connections are to be made anew.
pub(crate) async fn moved(moves: &mut watch::Receiver<u64>) -> io::Error {
    if moves.changed().await.is_err() {
        std::future::pending::<()>().await; // the client was dropped, and its users end with it
    }
    io::Error::other("redis is at another server")
}

/// Searches whenever there is a suspicion.
pub(crate) async fn run(client: RedisClient, keys: Keys) {
    let failover = client.failover();
    loop {
        failover.suspicion.notified().await;
        warn!("redis refuses as a server does that is not the primary: the right one is being searched");
        let mut pause = DELAYS.0;
        while let Err(error) = probe(&client, &keys).await {
            debug!(%error, "no other server yet");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(DELAYS.1);
        }
        client.replace();
        failover.moves.send_modify(|moves| *moves += 1);
        info!("redis takes writes at this address: all connections are opened again");
        sleep(LATE_REFUSALS).await;
        failover.is_suspected.store(false, Relaxed);
    }
}

/// Connects, with the name of the server resolved anew, and removes a key that is never set: every server that would refuse
/// the renewal of a lease refuses that.
async fn probe(client: &RedisClient, keys: &Keys) -> Result<(), RedisError> {
    let attempt = async {
        let mut connection = client.multiplexed_connection().await?;
        cmd("DEL").arg(keys.unused()).query_async(&mut connection).await
    };
    let late = || io::Error::from(io::ErrorKind::TimedOut).into();
    timeout(client.timeout(), attempt).await.unwrap_or_else(|_| Err(late()))
}

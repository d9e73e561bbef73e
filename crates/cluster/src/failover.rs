//! Keeps all connections of a node at one server, and finds the right one.
//!
//! A node has three connections: the shared one of commands, the publisher's and the subscriber's. The renewal of the lease, a
//! write each second, shows that the first leads to a server that takes writes. The others are opened after it ([`anchor`])
//! and opened again when it is replaced ([`replaced`]). So none of them stays at an old server after the address was moved
//! to another one: there messages would be published that no other node receives, and awaited that none sends.
//!
//! If Redis refuses as only a wrong server does, the address was moved and the old server left the connections open. Only when
//! a new one was accepted by a server that takes writes, the shared connection is replaced, and with it the others, all at
//! once: members get one gap, and none for each attempt.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use deadpool_redis::redis::{RedisError, cmd};
use phalanx_core::backend::BackendError;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::client::RedisClient;
use crate::keys::Keys;
use crate::refusals::RefusalMeaning;

/// The shortest and the longest pause between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// For this long after a move refusals may be those of the old server that arrive late.
const LATE_REFUSALS: Duration = Duration::from_secs(1);

/// The suspicion that the connections lead to a wrong server.
#[derive(Debug, Default)]
pub(crate) struct Failover {
    is_suspected: AtomicBool,
    suspicion: Notify,
}

impl Failover {
    /// Has the right server searched, unless that is in progress.
    pub(crate) fn suspect(&self) {
        if !self.is_suspected.swap(true, Relaxed) {
            self.suspicion.notify_one();
        }
    }
}

/// Waits for the answer to a write over the shared connection. A connection that is opened after that, and replaced once the
/// number changes that is returned, leads to the server of the shared one, or to the one that the address was moved to
/// meanwhile, which the shared one will follow. A server that is busy for a while answers too.
///
/// # Errors
///
/// If there is no answer within the timeout of a command, or that of a wrong server.
pub(crate) async fn anchor(client: &RedisClient, keys: &Keys) -> Result<watch::Receiver<u64>, BackendError> {
    let (key, started) = (keys.unused(), Instant::now());
    loop {
        let number = client.connection_number();
        let answer = match client.query(&key, cmd("DEL").arg(&key)).await {
            Err(BackendError::Refused(reply)) if !is_of_wrong_server(&reply.to_string()) => Ok(()),
            Err(BackendError::Full) => Ok(()),
            answer => answer,
        };
        let is_replaced = number.has_changed().unwrap_or(false);
        if !is_replaced || (answer.is_err() && started.elapsed() >= client.timeout()) {
            return answer.map(|()| number);
        }
    }
}

fn is_of_wrong_server(reply: &str) -> bool {
    RefusalMeaning::of(reply) == RefusalMeaning::WrongServer
}

/// Completes with an error once the shared connection is another one than when [`anchor`] returned.
pub(crate) async fn replaced(number: &mut watch::Receiver<u64>) -> io::Error {
    if number.changed().await.is_err() {
        std::future::pending::<()>().await; // the client was dropped, and its users end with it
    }
    io::Error::other("commands go over a new connection, which may lead to another server")
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
        client.replace_connection();
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

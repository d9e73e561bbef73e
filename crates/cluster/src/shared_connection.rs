//! The connection that all ordinary commands share, with a number: 1 for the first one, one more for each that follows.
//!
//! A connection that broke is replaced, and so is one that is open but dead: if the network drops packets silently, or a
//! firewall has forgotten the connection, no command on it is ever answered, and the kernel reports an error only after
//! minutes.
//!
//! The next connection may lead to another server. Since all connections of a node must lead to one, the number is what the
//! subscriber and the publisher watch; see [`failover`](crate::failover). It rises once for each connection, however many
//! commands fail on it, and however late: each command knows the number of its own.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig, RedisError};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The shortest and the longest pause between two attempts to connect.
const RECONNECT_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection that the first command establishes. It makes progress while commands wait for it.
type OpeningConnection = Shared<BoxFuture<'static, MultiplexedConnection>>;

pub(crate) struct SharedConnection {
    client: redis::Client,
    timeout: Duration,
    home: Option<Handle>,
    current: Mutex<CurrentConnection>,
    /// Why the last attempt to connect failed; empty once one has succeeded.
    failure: Arc<Mutex<String>>,
    /// Changes only under the lock of `current`.
    number: watch::Sender<u64>,
}

struct CurrentConnection {
    connection: OpeningConnection,
    /// The time of the last reply over it, or of its creation if there was none.
    last_reply: Instant,
}

impl SharedConnection {
    /// The first command connects. Whichever runtime that is on, the connection is on `home`: it must not stand still with
    /// another, nor end with it.
    pub(crate) fn new(client: redis::Client, timeout: Duration, home: Option<Handle>) -> Self {
        let failure = Arc::default();
        let connection = connect(client.clone(), timeout, home.clone(), Arc::clone(&failure));
        let current = Mutex::new(CurrentConnection { connection, last_reply: Instant::now() });
        Self { client, timeout, home, current, failure, number: watch::Sender::new(1) }
    }

    /// Waits, without limit, until the connection is established; returns it with its number.
    pub(crate) async fn get(&self) -> (u64, MultiplexedConnection) {
        let (number, connection) = {
            let current = self.current();
            (*self.number.borrow(), current.connection.clone())
        };
        (number, connection.await)
    }

    /// The runtime of the connection, if it was created within one.
    pub(crate) fn home(&self) -> Option<Handle> {
        self.home.clone()
    }

    pub(crate) fn number(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// Why no connection is established; empty if one is.
    pub(crate) fn failure(&self) -> String {
        lock(&self.failure).clone()
    }

    pub(crate) fn record_reply(&self) {
        self.current().last_reply = Instant::now();
    }

    /// Replaces the connection. Commands that wait on the old one keep it alive until they are answered or time out.
    pub(crate) fn replace(&self) {
        self.replace_in(&mut self.current());
    }

    /// Replaces the connection of this number, unless that was done already.
    pub(crate) fn replace_lost(&self, number: u64) {
        let mut current = self.current();
        if *self.number.borrow() == number {
            self.replace_in(&mut current);
        }
    }

    /// Replaces the connection if no command at all was answered for one timeout. One that is still being established is
    /// replaced too: it has had a whole timeout to get ready.
    pub(crate) fn replace_if_dead(&self) {
        let mut current = self.current();
        if current.last_reply.elapsed() >= self.timeout {
            self.replace_in(&mut current);
        }
    }

    fn replace_in(&self, current: &mut CurrentConnection) {
        let connection = connect(self.client.clone(), self.timeout, self.home.clone(), self.failure.clone());
        *current = CurrentConnection { connection, last_reply: Instant::now() };
        self.number.send_modify(|number| *number += 1);
    }

    fn current(&self) -> MutexGuard<'_, CurrentConnection> {
        lock(&self.current)
    }
}

/// Whether an error means that the connection was lost. The first command after that gets it, even if Redis is back by then.
pub(crate) fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

fn connect(
    client: redis::Client,
    timeout: Duration,
    home: Option<Handle>,
    failure: Arc<Mutex<String>>,
) -> OpeningConnection {
    // Commands have a timeout of their own, with which they also count as unanswered.
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
    let connecting = async move {
        let mut pause = RECONNECT_DELAYS.0;
        loop {
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => {
                    lock(&failure).clear();
                    return connection;
                }
                Err(error) => *lock(&failure) = error.to_string(),
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(RECONNECT_DELAYS.1);
        }
    };
    let mut connecting = connecting.boxed();
    let at_home = poll_fn(move |cx| {
        let _within = home.as_ref().map(Handle::enter);
        connecting.as_mut().poll(cx)
    });
    at_home.boxed().shared()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

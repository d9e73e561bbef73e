//! The connection that ordinary commands share: pipelined, reconnected automatically, with a timeout for every command.
//!
//! The connection is also replaced when it is open but dead: if the network drops packets silently, or a firewall has
//! forgotten the connection, no command on it is ever answered, and the kernel reports an error only after minutes.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    ScriptInvocation, ServerErrorKind,
};
use phalanx_core::backend::BackendError;
use tokio::time::Instant;
use tracing::warn;

use crate::address;
use crate::failover::Failover;
use crate::keys::Keys;
use crate::raw_connection::RawConnection;
use crate::refusals::{self, RefusalMeaning, Refusals};

/// Why an address cannot be used.
type OpenError = Box<dyn Error + Send + Sync>;

/// The longest pause between two attempts to reconnect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// A handle to Redis. Cheap to clone: every clone shares one connection.
#[derive(Clone)]
pub struct RedisClient {
    client: redis::Client,
    shared: Arc<Mutex<SharedConnection>>,
    refusals: Arc<Refusals>,
    failover: Arc<Failover>,
    /// The number of times that a connection was found lost.
    lost: Arc<AtomicU64>,
    timeout: Duration,
}

/// The shared connection, and the time of the last reply over it, or of its creation if there was none.
struct SharedConnection {
    connection: ConnectionManager,
    last_reply: Instant,
}

impl RedisClient {
    /// Parses the address of a Redis; the first command connects. A command without a reply within `timeout` fails;
    /// Redis may still run it.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, or requires TLS while the feature `tls` is off.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, OpenError> {
        address::check(url)?;
        if is_tls(url) {
            prepare_tls()?;
        }
        let info = url.into_connection_info()?;
        // Commands are small and latency counts: with Nagle's algorithm one would wait for the ack of the one before
        // it.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = redis::Client::open(info)?;
        let connection = connect(&client, timeout)?;
        let shared = Arc::new(Mutex::new(SharedConnection { connection, last_reply: Instant::now() }));
        Ok(Self { client, shared, refusals: Arc::default(), failover: Arc::default(), lost: Arc::default(), timeout })
    }

    /// Has the log lines about missing rights name those of this cluster.
    pub(crate) fn name_rights(&self, keys: &Keys) {
        self.refusals.name_rights(keys);
    }

    /// The search for the right server.
    pub(crate) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// Counts and logs an error, if it is one by which Redis refused, and has the right server searched if this is a wrong
    /// one.
    pub(crate) fn record_refusal(&self, error: &BackendError) {
        if self.refusals.record(error) == Some(RefusalMeaning::WrongServer) {
            self.failover.suspect();
        }
    }

    /// Opens a connection for few commands besides the shared one. Has no timeout of its own.
    pub(crate) async fn multiplexed_connection(&self) -> Result<MultiplexedConnection, RedisError> {
        // Its own defaults are shorter: a slow Redis would never answer in time.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Opens a connection besides the shared one.
    pub(crate) async fn raw_connection(&self) -> io::Result<RawConnection> {
        tokio::time::timeout(self.timeout, RawConnection::open(self.client.get_connection_info())).await?
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// The timeout of every command.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a command; errors name `key`.
    pub(crate) async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let mut connection = self.connection();
        self.with_timeout(key, command.query_async(&mut connection)).await
    }

    /// Runs a script; errors name `key`.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let mut connection = self.connection();
        self.with_timeout(key, script.invoke_async(&mut connection)).await
    }

    /// Sends a command that changes nothing. It is sent a second time if the connection turns out to be lost.
    pub(crate) async fn read<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let reply = async {
            let mut connection = self.connection();
            match command.query_async(&mut connection).await {
                Err(error) if self.is_lost(&error) => command.query_async(&mut connection).await,
                reply => reply,
            }
        };
        self.with_timeout(key, reply).await
    }

    /// Sends a command that changes nothing over a new connection: it waits for no other command, and reaches the server
    /// that the address names now.
    pub(crate) async fn read_apart<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let reply = async {
            let mut connection = self.multiplexed_connection().await?;
            command.query_async(&mut connection).await
        };
        match tokio::time::timeout(self.timeout, reply).await {
            Ok(reply) => reply.map_err(|error| self.backend_error(error, key)),
            Err(_) => Err(BackendError::unavailable("redis did not answer in time")),
        }
    }

    /// Sends several commands that change nothing in one round trip. They are sent a second time if the connection turns
    /// out to be lost.
    pub(crate) async fn read_all<T: FromRedisValue>(&self, key: &str, commands: &Pipeline) -> Result<T, BackendError> {
        let reply = async {
            let mut connection = self.connection();
            match commands.query_async(&mut connection).await {
                Err(error) if self.is_lost(&error) => commands.query_async(&mut connection).await,
                reply => reply,
            }
            .map_err(first_of_pipeline)
        };
        self.with_timeout(key, reply).await
    }

    /// Runs an idempotent script. It is sent a second time if the connection turns out to be lost.
    pub(crate) async fn run_idempotent<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let reply = async {
            let mut connection = self.connection();
            match script.invoke_async(&mut connection).await {
                Err(error) if self.is_lost(&error) => script.invoke_async(&mut connection).await,
                reply => reply,
            }
        };
        self.with_timeout(key, reply).await
    }

    /// A number that changes when commands are sent over a new connection, which may lead to another server.
    pub(crate) fn count_lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether an error means that the connection was lost, which is recorded.
    fn is_lost(&self, error: &RedisError) -> bool {
        let is_lost = is_connection_lost(error);
        if is_lost {
            self.lost.fetch_add(1, Relaxed);
        }
        is_lost
    }

    fn connection(&self) -> ConnectionManager {
        self.shared().connection.clone()
    }

    fn shared(&self) -> MutexGuard<'_, SharedConnection> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the wait for a reply. The connection manager itself lets commands wait for a reconnect without limit.
    async fn with_timeout<T>(
        &self,
        key: &str,
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, BackendError> {
        match tokio::time::timeout(self.timeout, reply).await {
            Ok(reply) if !matches!(&reply, Err(error) if error.is_timeout()) => {
                self.shared().last_reply = Instant::now();
                reply.map_err(|error| {
                    self.is_lost(&error);
                    self.backend_error(error, key)
                })
            }
            Ok(_) | Err(_) => {
                self.replace_if_dead();
                Err(BackendError::unavailable("redis did not answer in time"))
            }
        }
    }

    /// Translates an error of Redis.
    fn backend_error(&self, error: RedisError, key: &str) -> BackendError {
        let wrong = || BackendError::WrongKind { key: key.to_owned() };
        match (error.kind(), error.code()) {
            (_, Some("WRONGTYPE")) => wrong(),
            (_, Some("REAPED")) => BackendError::refused("this node was reaped and is registering again"),
            (_, Some("LOCKED")) => BackendError::Locked { key: key.to_owned() },
            (ErrorKind::Server(ServerErrorKind::ResponseError), _) if is_not_a_counter(&error) => wrong(),
            (_, Some(code)) => {
                let refused = refusals::error_of(&format!("{code} {}", error.detail().unwrap_or_default()));
                self.record_refusal(&refused);
                refused
            }
            (_, None) => BackendError::unavailable(error),
        }
    }

    /// Replaces the connection if no command at all was answered for one timeout. Commands that still wait on the old
    /// connection keep it alive until they time out. A connection that is still being established is replaced too: it
    /// has had a whole timeout to get ready.
    fn replace_if_dead(&self) {
        if self.shared().last_reply.elapsed() >= self.timeout {
            self.replace();
        }
    }

    /// Replaces the connection. Commands that wait on the old one keep it alive until they are answered or time out.
    pub(crate) fn replace(&self) {
        let mut shared = self.shared();
        match connect(&self.client, self.timeout) {
            Ok(connection) => {
                self.lost.fetch_add(1, Relaxed);
                *shared = SharedConnection { connection, last_reply: Instant::now() };
            }
            Err(error) => warn!(%error, "the connection to redis cannot be replaced"),
        }
    }
}

fn is_tls(url: &str) -> bool {
    redis::parse_redis_url(url).is_some_and(|url| matches!(url.scheme(), "rediss" | "valkeys"))
}

/// Installs the crypto provider unless the application has installed one. If another crate brings a second provider,
/// rustls picks neither by itself.
#[cfg(feature = "tls")]
fn prepare_tls() -> Result<(), OpenError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn prepare_tls() -> Result<(), OpenError> {
    Err("it requires TLS, and this program is built without the feature `tls` of phalanx".into())
}

/// A connection that the first command establishes, and that reconnects when it breaks.
fn connect(client: &redis::Client, timeout: Duration) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_number_of_retries(usize::MAX)
        .set_max_delay(MAX_RECONNECT_DELAY);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisClient")
    }
}

/// Whether the connection was lost. The first command after that gets the error, even if Redis is back by then.
fn is_connection_lost(error: &RedisError) -> bool {
    error.is_connection_dropped() || (error.is_io_error() && !error.is_timeout())
}

/// Returns the error of the first command that failed, as if it had been sent alone.
fn first_of_pipeline(error: RedisError) -> RedisError {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => first.clone().into(),
        _ => error,
    }
}

/// Whether INCRBY met something other than a counter: the code `ERR` has many meanings, and only the message
/// distinguishes them.
fn is_not_a_counter(error: &RedisError) -> bool {
    let text = error.to_string();
    text.contains("not an integer") || text.contains("would overflow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_command_waits_for_the_ack_of_the_one_before_it() {
        let client = RedisClient::open("redis://127.0.0.1:1", Duration::from_secs(1)).unwrap();
        assert!(client.client.get_connection_info().tcp_settings().nodelay());
    }

    #[tokio::test]
    async fn an_address_with_tls_is_accepted_or_the_missing_feature_is_named() {
        for url in ["rediss://user:secret@localhost:6380/1", "REDISS://localhost", "valkeys://localhost"] {
            let refusal = RedisClient::open(url, Duration::from_secs(1)).err().map(|error| error.to_string());
            let words = "it requires TLS, and this program is built without the feature `tls` of phalanx";
            assert_eq!(refusal.as_deref(), (!cfg!(feature = "tls")).then_some(words), "{url}");
        }
    }
}

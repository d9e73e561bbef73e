//! Sends commands to Redis, pipelined over one shared connection, with a timeout for every command.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{MultiplexedConnection, PubSub};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Script,
    ScriptInvocation, ServerErrorKind,
};
use phalanx_core::backend::BackendError;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;

use crate::address;
use crate::failover::Failover;
use crate::keys::Keys;
use crate::raw_connection::RawConnection;
use crate::refusals::{self, RefusalMeaning, Refusals};
use crate::shared_connection::{SharedConnection, is_lost};

/// Why an address cannot be used.
type OpenError = Box<dyn Error + Send + Sync>;

/// The extra time for replies that were received before the timeout and are not read yet.
const FROZEN_GRACE: Duration = Duration::from_millis(100);

/// A handle to Redis. Cheap to clone: every clone shares one connection.
#[derive(Clone)]
pub struct RedisClient {
    client: redis::Client,
    shared: Arc<SharedConnection>,
    refusals: Arc<Refusals>,
    failover: Arc<Failover>,
    /// The number of the connection that this one follows to another server, if it is one apart.
    followed: Option<Arc<Mutex<watch::Receiver<u64>>>>,
    timeout: Duration,
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
        let shared = Arc::new(SharedConnection::new(client.clone(), timeout, Handle::try_current().ok()));
        let (refusals, failover) = Default::default();
        Ok(Self { client, shared, refusals, failover, followed: None, timeout })
    }

    /// The same Redis over another connection, on this runtime, which is replaced when the shared one is: replies come in
    /// order, and those of one use need not wait for those of another.
    pub(crate) fn apart(&self, home: Option<Handle>) -> Self {
        let shared = Arc::new(SharedConnection::new(self.client.clone(), self.timeout, home));
        Self { shared, followed: Some(Arc::new(Mutex::new(self.connection_number()))), ..self.clone() }
    }

    /// The runtime of its connection.
    pub(crate) fn home(&self) -> Option<Handle> {
        self.shared.home()
    }

    /// Has the log lines about missing rights name those of this cluster.
    pub(crate) fn name_rights(&self, keys: &Keys) {
        self.refusals.name_rights(keys);
    }

    /// The advice to operators for an error reply; empty if there is none.
    pub(crate) fn advice(&self, reply: &str) -> String {
        self.refusals.advice(reply)
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

    /// Opens a connection that subscribes. Has no timeout of its own.
    pub(crate) async fn subscriber(&self) -> Result<PubSub, RedisError> {
        self.client.get_async_pubsub().await
    }

    /// Opens a connection besides the shared one.
    pub(crate) async fn raw_connection(&self) -> io::Result<RawConnection> {
        time::timeout(self.timeout, RawConnection::open(self.client.get_connection_info())).await?
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// The timeout of every command.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The number of the connection that commands share. It changes when they go over a new one, which may lead to another
    /// server.
    pub(crate) fn connection_number(&self) -> watch::Receiver<u64> {
        self.shared.number()
    }

    /// Why the shared connection cannot be established; empty if it is.
    pub(crate) fn connection_failure(&self) -> String {
        self.shared.failure()
    }

    /// Replaces the shared connection. Commands that wait on the old one keep it alive until they are answered or time out.
    pub(crate) fn replace_connection(&self) {
        self.shared.replace();
    }

    /// Sends a command; errors name `key`.
    pub(crate) async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let reply = self.send(|mut connection| async move { command.query_async(&mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// Runs a script; errors name `key`.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let reply = self.send(|mut connection| async move { script.invoke_async(&mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// Runs a script by a command of EVALSHA, whose arguments are in one buffer; errors name `key`.
    pub(crate) async fn evaluate<T: FromRedisValue>(
        &self,
        key: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let reply = self.send(|mut connection| async move { evaluate(script, command, &mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// The same for an idempotent script. It is sent a second time if the connection turns out to be lost.
    pub(crate) async fn evaluate_idempotent<T: FromRedisValue>(
        &self,
        key: &str,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, BackendError> {
        let reply = self.send_again(|mut connection| async move { evaluate(script, command, &mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// Runs a script as [`evaluate`](Self::evaluate) does, and then these commands, over the same connection; they may be refused after the script ran. All of them share
    /// one timeout.
    pub(crate) async fn evaluate_and<T: FromRedisValue, U: FromRedisValue>(
        &self,
        key: &str,
        (script, command): (&Script, &Cmd),
        then: &Pipeline,
    ) -> Result<(T, Result<U, BackendError>), BackendError> {
        let reply = self.send(|mut connection| async move {
            let reply = evaluate(script, command, &mut connection).await?;
            match then.query_async(&mut connection).await.map_err(first_of_pipeline) {
                Err(error) if is_lost(&error) => Err(error),
                answer => Ok((reply, answer)),
            }
        });
        let (reply, answer): (T, Result<U, RedisError>) = self.with_timeout(key, reply).await?;
        Ok((reply, answer.map_err(|error| self.backend_error(error, key))))
    }

    /// Sends a command that changes nothing. It is sent a second time if the connection turns out to be lost.
    pub(crate) async fn read<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let reply = self.send_again(|mut connection| async move { command.query_async(&mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// Sends a command that a server may lack, or not allow: its refusal is no fault, so it is neither counted nor logged.
    pub(crate) async fn probe<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let reply = self.send(|mut connection| async move { command.query_async(&mut connection).await });
        time::timeout(self.timeout, reply).await.ok()?.ok()
    }

    /// Sends several commands that change nothing in one round trip. They are sent a second time if the connection turns
    /// out to be lost.
    pub(crate) async fn read_all<T: FromRedisValue>(&self, key: &str, commands: &Pipeline) -> Result<T, BackendError> {
        let reply = self.send_again(|mut connection| async move {
            commands.query_async(&mut connection).await.map_err(first_of_pipeline)
        });
        self.with_timeout(key, reply).await
    }

    /// The same, of which each may meet a key of another type than it expects: `None`.
    pub(crate) async fn read_each<T: FromRedisValue>(
        &self,
        key: &str,
        mut commands: Pipeline,
    ) -> Result<Vec<Option<T>>, BackendError> {
        commands.ignore_errors();
        let replies: Vec<Result<T, RedisError>> = self.read_all(key, &commands).await?;
        let reply = |reply: Result<T, RedisError>| match reply.map_err(|error| self.backend_error(error, key)) {
            Ok(reply) => Ok(Some(reply)),
            Err(BackendError::WrongKind { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        replies.into_iter().map(reply).collect()
    }

    /// Runs an idempotent script. It is sent a second time if the connection turns out to be lost.
    pub(crate) async fn run_idempotent<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let reply = self.send_again(|mut connection| async move { script.invoke_async(&mut connection).await });
        self.with_timeout(key, reply).await
    }

    /// Sends something over the shared connection, which is replaced if it turns out to be lost.
    async fn send<T, R>(&self, request: impl FnOnce(MultiplexedConnection) -> R) -> Result<T, RedisError>
    where
        R: Future<Output = Result<T, RedisError>>,
    {
        if self.followed.as_ref().is_some_and(|followed| has_changed(followed)) {
            self.shared.replace();
        }
        let (number, connection) = self.shared.get().await;
        let reply = request(connection).await;
        if reply.as_ref().is_err_and(is_lost) {
            self.shared.replace_lost(number);
        }
        reply
    }

    /// Sends something, and once more over the next connection if the first one turns out to be lost.
    async fn send_again<T, R>(&self, request: impl Fn(MultiplexedConnection) -> R) -> Result<T, RedisError>
    where
        R: Future<Output = Result<T, RedisError>>,
    {
        match self.send(&request).await {
            Err(error) if is_lost(&error) => self.send(&request).await,
            reply => reply,
        }
    }

    /// Limits the wait for a connection and for a reply.
    async fn with_timeout<T>(
        &self,
        key: &str,
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, BackendError> {
        let mut reply = pin!(reply);
        let in_time = match time::timeout(self.timeout, &mut reply).await {
            Ok(reply) => Ok(reply),
            // In a process that was frozen, the timeout fires before what arrived meanwhile is read.
            Err(_) => time::timeout(FROZEN_GRACE, reply).await,
        };
        match in_time {
            Ok(reply) => {
                self.shared.record_reply();
                reply.map_err(|error| self.backend_error(error, key))
            }
            Err(_) => {
                self.shared.replace_if_dead();
                let (late, failure) = ("redis did not answer in time", self.shared.failure());
                let reason = if failure.is_empty() { late.to_owned() } else { format!("{late}: {failure}") };
                Err(BackendError::unavailable(reason))
            }
        }
    }

    /// Translates an error of Redis.
    fn backend_error(&self, error: RedisError, key: &str) -> BackendError {
        let wrong = || BackendError::WrongKind { key: key.to_owned() };
        let Some(code) = error.code() else { return BackendError::unavailable(error) };
        let reply = format!("{code} {}", error.detail().unwrap_or_default());
        let code = refusals::error_in_script(&reply).map_or(code, |error| error.split(' ').next().unwrap_or_default());
        match (error.kind(), code) {
            (_, "WRONGTYPE") => wrong(),
            (_, "REAPED") => BackendError::refused("this node was reaped and is registering again"),
            (_, "LOCKED") => BackendError::Locked { key: key.to_owned() },
            (ErrorKind::Server(ServerErrorKind::ResponseError), _) if is_not_a_counter(&error) => wrong(),
            _ => {
                let refused = refusals::error_of(&reply);
                self.record_refusal(&refused);
                refused
            }
        }
    }
}

/// Spawns a task of all callers on the runtime of a connection: that of one caller may stand still, as where a job blocks its
/// thread.
pub(crate) fn spawn_at_home<F>(home: Option<&Handle>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match home {
        Some(home) => home.spawn(future),
        None => tokio::spawn(future),
    }
}

/// Runs a script, and loads it where the server does not have it.
async fn evaluate<T: FromRedisValue>(
    script: &Script,
    command: &Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, RedisError> {
    match command.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.load_async(connection).await?;
            command.query_async(connection).await
        }
        reply => reply,
    }
}

/// Whether the number changed since the last look.
fn has_changed(number: &Mutex<watch::Receiver<u64>>) -> bool {
    let mut number = number.lock().unwrap_or_else(PoisonError::into_inner);
    let has_changed = number.has_changed().unwrap_or(false);
    number.mark_unchanged();
    has_changed
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

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisClient")
    }
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

//! The connection that ordinary commands share: pipelined, reconnected by itself, bounded in time.
//!
//! It is made anew also where nothing breaks it: a network that drops packets in silence, or a firewall that forgot the
//! connection, leaves one on which no command is ever answered, and the system notices only after minutes.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    self, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, ScriptInvocation, ServerErrorKind,
};
use phalanx_core::backend::BackendError;
use tokio::time::Instant;
use tracing::warn;

use crate::raw_connection::RawConnection;

/// What is wrong with an address, in words.
type BoxError = Box<dyn Error + Send + Sync>;

/// The longest pause between two tries to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A handle to Redis. Cheap to clone: every clone shares one connection.
#[derive(Clone)]
pub struct Client {
    client: redis::Client,
    shared: Arc<Mutex<Link>>,
    timeout: Duration,
}

/// The shared connection, and when Redis last answered over it; when it was made, if it never did.
struct Link {
    connection: ConnectionManager,
    heard: Instant,
}

impl Client {
    /// Takes the address of a Redis and connects with the first command. A command that has no answer within `timeout` is
    /// given up; Redis may still run it.
    ///
    /// # Errors
    ///
    /// If the URL is none, or asks for TLS and the feature `tls` is off.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, BoxError> {
        if is_tls(url) {
            prepare_tls()?;
        }
        let info = url.into_connection_info()?;
        // A command is small and somebody waits for it: it must not wait for the answer to the one before it.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = redis::Client::open(info)?;
        let connection = connect(&client, timeout)?;
        let shared = Arc::new(Mutex::new(Link { connection, heard: Instant::now() }));
        Ok(Self { client, shared, timeout })
    }

    /// A connection beside the shared one.
    pub(crate) async fn raw_connection(&self) -> io::Result<RawConnection> {
        tokio::time::timeout(self.timeout, RawConnection::open(self.client.get_connection_info())).await?
    }

    /// How long anything may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a command that is about `key`.
    pub(crate) async fn ask<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let mut connection = self.connection();
        self.in_time(key, command.query_async(&mut connection)).await
    }

    /// Runs a script that is about `key`.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let mut connection = self.connection();
        self.in_time(key, script.invoke_async(&mut connection)).await
    }

    /// Sends a command that changes nothing: again, if it met a connection that was gone.
    pub(crate) async fn read<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, BackendError> {
        let asking = async {
            let mut connection = self.connection();
            match command.query_async(&mut connection).await {
                Err(error) if was_cut(&error) => command.query_async(&mut connection).await,
                answer => answer,
            }
        };
        self.in_time(key, asking).await
    }

    /// Runs a script that may run twice: again, if it met a connection that was gone.
    pub(crate) async fn run_again<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BackendError> {
        let asking = async {
            let mut connection = self.connection();
            match script.invoke_async(&mut connection).await {
                Err(error) if was_cut(&error) => script.invoke_async(&mut connection).await,
                answer => answer,
            }
        };
        self.in_time(key, asking).await
    }

    fn connection(&self) -> ConnectionManager {
        self.link().connection.clone()
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that comes back by itself lets commands wait for it without end, so the bound is ours.
    async fn in_time<T>(
        &self,
        key: &str,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, BackendError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) if !matches!(&answer, Err(error) if error.is_timeout()) => {
                self.link().heard = Instant::now();
                answer.map_err(|error| fault(error, key))
            }
            Ok(_) | Err(_) => {
                self.replace_if_silent();
                Err(BackendError::unavailable("redis did not answer in time"))
            }
        }
    }

    /// Makes the connection anew if no command at all was answered for as long as one may take. Commands that still wait
    /// on the old one keep it until their time is over; one that is being made has had its time as well.
    fn replace_if_silent(&self) {
        let mut link = self.link();
        if link.heard.elapsed() < self.timeout {
            return;
        }
        match connect(&self.client, self.timeout) {
            Ok(connection) => *link = Link { connection, heard: Instant::now() },
            Err(error) => warn!(%error, "the connection to redis is not made anew"),
        }
    }
}

fn is_tls(url: &str) -> bool {
    redis::parse_redis_url(url).is_some_and(|url| matches!(url.scheme(), "rediss" | "valkeys"))
}

/// Names the one crypto provider, unless the application did: where another crate brings a second, rustls takes neither.
#[cfg(feature = "tls")]
fn prepare_tls() -> Result<(), BoxError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn prepare_tls() -> Result<(), BoxError> {
    Err("it asks for TLS, and this program is built without the feature `tls` of phalanx".into())
}

/// A connection that is made by the first command, and again when it breaks.
fn connect(client: &redis::Client, timeout: Duration) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_number_of_retries(usize::MAX)
        .set_max_delay(LONGEST_PAUSE);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// The first command after a connection broke gets its error, even if Redis is back by then.
fn was_cut(error: &RedisError) -> bool {
    error.is_connection_dropped() || (error.is_io_error() && !error.is_timeout())
}

/// What an error of Redis means for who asked.
pub(crate) fn fault(error: RedisError, key: &str) -> BackendError {
    let wrong = || BackendError::WrongKind { key: key.to_owned() };
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => wrong(),
        (_, Some("OOM")) => BackendError::Full,
        (_, Some("REAPED")) => BackendError::unavailable("this node was found dead and is being listed anew"),
        (_, Some("LOCKED")) => BackendError::Locked { key: key.to_owned() },
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) if is_no_counter(&error) => wrong(),
        _ => BackendError::unavailable(error),
    }
}

/// `ERR` has many meanings; those of INCRBY are told by their words alone.
fn is_no_counter(error: &RedisError) -> bool {
    let text = error.to_string();
    text.contains("not an integer") || text.contains("would overflow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_command_waits_for_the_answer_to_the_one_before_it() {
        let client = Client::open("redis://127.0.0.1:1", Duration::from_secs(1)).unwrap();
        assert!(client.client.get_connection_info().tcp_settings().nodelay());
    }

    #[tokio::test]
    async fn an_address_with_tls_is_taken_or_the_missing_feature_is_named() {
        for url in ["rediss://user:secret@localhost:6380/1", "REDISS://localhost", "valkeys://localhost"] {
            let refusal = Client::open(url, Duration::from_secs(1)).err().map(|error| error.to_string());
            let words = "it asks for TLS, and this program is built without the feature `tls` of phalanx";
            assert_eq!(refusal.as_deref(), (!cfg!(feature = "tls")).then_some(words), "{url}");
        }
    }
}

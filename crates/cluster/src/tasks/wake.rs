//! The subscription to the channel that says when a queue is not empty any more.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use phalanx_core::bound_reached;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::RedisClient;
use crate::failover;
use crate::keys::Keys;
use crate::resp::{self, RespError, RespItems};

/// A PING is sent this often; a connection that is silent for twice as long is dead.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The pause before a connection is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// The longest text: the name of a queue has 100 characters.
const MAX_TEXT: usize = 1024;

/// The subscription. It begins with the first wait: a node that runs no jobs has none.
#[derive(Debug)]
pub(super) struct WakeUps {
    client: RedisClient,
    keys: Keys,
    channel: String,
    notify: Arc<Notify>,
    listening: OnceLock<JoinHandle<()>>,
}

impl WakeUps {
    pub(super) fn new(client: RedisClient, keys: Keys, channel: String) -> Self {
        Self { client, keys, channel, notify: Arc::default(), listening: OnceLock::new() }
    }

    /// Completes after a message, and whenever some may have been missed.
    pub(super) async fn next(&self) {
        self.listening.get_or_init(|| {
            tokio::spawn(listen(self.client.clone(), self.keys.clone(), self.channel.clone(), self.notify.clone()))
        });
        self.notify.notified().await;
    }
}

impl Drop for WakeUps {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.get() {
            listening.abort();
        }
    }
}

async fn listen(client: RedisClient, keys: Keys, channel: String, notify: Arc<Notify>) {
    loop {
        let error = match failover::anchor(&client, &keys).await {
            Ok(mut number) => tokio::select! {
                error = read(&client, &channel, &notify) => error.to_string(),
                error = failover::replaced(&mut number) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        debug!(error, "no wake-ups for tasks");
        notify.notify_one();
        sleep(RECONNECT_DELAY).await;
    }
}

/// Reads until the connection breaks.
async fn read(client: &RedisClient, channel: &str, notify: &Notify) -> io::Error {
    let reading = async {
        let mut connection = client.raw_connection().await?;
        let mut subscribe = BytesMut::new();
        resp::write(&mut subscribe, [&b"SUBSCRIBE"[..], channel.as_bytes()].into_iter());
        connection.writes.write_all(&subscribe).await?;
        connection.writes.flush().await?;
        let (mut received, mut has_pinged) = (BytesMut::new(), false);
        loop {
            match timeout(HEARTBEAT, connection.reads.read_buf(&mut received)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    read?;
                    has_pinged = false;
                    skip(&mut received)?;
                    // Confirmations and PONGs wake too: nothing is lost by a look.
                    notify.notify_one();
                }
                Err(_) if has_pinged => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {
                    has_pinged = true;
                    connection.writes.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
                    connection.writes.flush().await?;
                }
            }
        }
    };
    let Err::<std::convert::Infallible, _>(error) = reading.await;
    error
}

/// Drops the items that are complete: that something came is all that counts. An error ends the connection.
fn skip(received: &mut BytesMut) -> io::Result<()> {
    let mut items = RespItems::new(received, MAX_TEXT);
    loop {
        match items.next() {
            Ok(resp::RespItem::Error(text)) => return Err(io::Error::other(String::from_utf8_lossy(text))),
            Ok(resp::RespItem::TooLong(_)) => {
                bound_reached("task_wake_up");
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(_) => {}
            Err(RespError::Incomplete) => break,
            Err(RespError::Malformed) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let read = items.read();
    received.advance(read);
    Ok(())
}

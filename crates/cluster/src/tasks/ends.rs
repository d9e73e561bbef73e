//! The subscription to the ends of tracked jobs, a channel for each job that is awaited here: a message of the script by which
//! the job ends reaches those who wait for it, and no one else.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{AwaitedEnd, AwaitedEnds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use crate::client::{RedisClient, spawn_at_home};
use crate::failover;
use crate::keys::Keys;
use crate::raw_connection::RawConnection;
use crate::resp::{self, RespError, RespItem, RespItems};

/// A PING is sent after so long a silence; a connection that is silent for twice as long is dead.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The pause before a connection is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// The channels that one command names.
const BATCH: usize = 500;

/// The longest text: the name of a channel, whose job's id has 128 characters.
const MAX_TEXT: usize = 1024;

/// The subscription. It begins with the first caller that waits: other nodes have none.
#[derive(Debug)]
pub(super) struct JobEnds {
    client: RedisClient,
    keys: Keys,
    awaited: Arc<AwaitedEnds>,
    listening: OnceLock<JoinHandle<()>>,
}

impl JobEnds {
    pub(super) fn new(client: RedisClient, keys: Keys) -> Self {
        Self { client, keys, awaited: Arc::new(AwaitedEnds::noting_changes()), listening: OnceLock::new() }
    }

    /// Waits for the end of a job: announced when the subscription stands, at its end, and whenever that may have been missed.
    pub(super) fn enter(&self, id: &str) -> AwaitedEnd {
        let listen = || listen(self.client.clone(), self.keys.clone(), self.awaited.clone());
        self.listening.get_or_init(|| spawn_at_home(self.client.home().as_ref(), listen()));
        self.awaited.enter(id)
    }
}

impl Drop for JobEnds {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.get() {
            listening.abort();
        }
    }
}

async fn listen(client: RedisClient, keys: Keys, awaited: Arc<AwaitedEnds>) {
    let channels = keys.wake_of_job();
    loop {
        let error = match failover::anchor(&client, &keys).await {
            Ok(mut number) => tokio::select! {
                error = read(&client, &channels, &awaited) => error.to_string(),
                error = failover::replaced(&mut number) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        debug!(error, "no ends of tracked jobs");
        sleep(RECONNECT_DELAY).await;
    }
}

/// Reads until the connection breaks. The confirmation of each channel announces too: the end may have come before it.
async fn read(client: &RedisClient, channels: &str, awaited: &AwaitedEnds) -> io::Error {
    let reading = async {
        let mut connection = client.raw_connection().await?;
        let all = awaited.take_all();
        subscribe(&mut connection, b"SUBSCRIBE", channels, &all).await?;
        let (mut received, mut has_pinged, mut silent_since) = (BytesMut::new(), false, Instant::now());
        loop {
            tokio::select! {
                read = connection.reads.read_buf(&mut received) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    (has_pinged, silent_since) = (false, Instant::now());
                    announce(&mut received, channels, awaited)?;
                }
                () = awaited.changed() => {
                    let (wanted, left): (Vec<_>, Vec<_>) =
                        awaited.take_changes().into_iter().partition(|(_, is_awaited)| *is_awaited);
                    let ids = |changes: Vec<(Arc<str>, bool)>| changes.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
                    subscribe(&mut connection, b"SUBSCRIBE", channels, &ids(wanted)).await?;
                    subscribe(&mut connection, b"UNSUBSCRIBE", channels, &ids(left)).await?;
                }
                () = sleep_until(silent_since + HEARTBEAT * (1 + u32::from(has_pinged))) => {
                    if has_pinged {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    has_pinged = true;
                    write(&mut connection, b"*1\r\n$4\r\nPING\r\n").await?;
                }
            }
        }
    };
    let Err::<std::convert::Infallible, _>(error) = reading.await;
    error
}

async fn subscribe(connection: &mut RawConnection, verb: &[u8], channels: &str, ids: &[Arc<str>]) -> io::Result<()> {
    for ids in ids.chunks(BATCH) {
        let mut command = BytesMut::new();
        resp::start(&mut command, ids.len() + 1);
        resp::write_part(&mut command, verb);
        for id in ids {
            resp::write_part(&mut command, [channels, id].concat().as_bytes());
        }
        write(connection, &command).await?;
    }
    Ok(())
}

/// Writes within a time: a server that reads no more is found by it.
async fn write(connection: &mut RawConnection, command: &[u8]) -> io::Result<()> {
    let writing = async {
        connection.writes.write_all(command).await?;
        connection.writes.flush().await
    };
    timeout(HEARTBEAT, writing).await?
}

/// Announces the jobs that complete items name, whatever these say about them. An error ends the connection.
fn announce(received: &mut BytesMut, channels: &str, awaited: &AwaitedEnds) -> io::Result<()> {
    let mut items = RespItems::new(received, MAX_TEXT);
    loop {
        match items.next() {
            Ok(RespItem::Error(text)) => return Err(io::Error::other(String::from_utf8_lossy(text))),
            Ok(RespItem::Text(text)) => {
                let id = text.strip_prefix(channels.as_bytes()).and_then(|id| std::str::from_utf8(id).ok());
                id.into_iter().for_each(|id| awaited.announce(id));
            }
            Ok(RespItem::TooLong(_)) | Err(RespError::Malformed) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => {}
            Err(RespError::Incomplete) => break,
        }
    }
    let read = items.read();
    received.advance(read);
    Ok(())
}

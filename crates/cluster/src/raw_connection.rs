//! A connection to Redis as plain bytes, for the publisher and the subscriber, which carry every message between nodes.

use std::io::{self, ErrorKind};

use bytes::{Buf, BytesMut};
use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::resp::{self, RespError, RespItem, RespItems};

/// The longest text in a reply: the hash of a script has 40 characters.
const MAX_TEXT: usize = 64;

/// The read half of a connection to Redis.
pub(crate) type Reads = Box<dyn AsyncRead + Send + Unpin>;

/// The write half of a connection to Redis.
pub(crate) type Writes = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection after AUTH and SELECT.
pub(crate) struct RawConnection {
    pub(crate) reads: Reads,
    pub(crate) writes: Writes,
}

impl RawConnection {
    /// Connects and logs in. Has no timeout of its own: the caller sets one.
    pub(crate) async fn open(info: &ConnectionInfo) -> io::Result<Self> {
        let mut connection = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let (reads, writes) = connect(host, *port).await?.into_split();
                Self { reads: Box::new(reads), writes: Box::new(writes) }
            }
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None } => {
                let (reads, writes) = tokio::io::split(secure(host, connect(host, *port).await?).await?);
                Self { reads: Box::new(reads), writes: Box::new(writes) }
            }
            ConnectionAddr::Unix(path) => {
                let (reads, writes) = UnixStream::connect(path).await?.into_split();
                Self { reads: Box::new(reads), writes: Box::new(writes) }
            }
            address => return Err(io::Error::new(ErrorKind::Unsupported, format!("no way to connect to {address}"))),
        };
        connection.log_in(info.redis_settings()).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, settings: &RedisConnectionInfo) -> io::Result<()> {
        let (mut commands, mut expected) = (BytesMut::new(), 0);
        if let Some(password) = settings.password() {
            let parts = [Some("AUTH"), settings.username(), Some(password)];
            let parts: Vec<_> = parts.into_iter().flatten().map(str::as_bytes).collect();
            resp::write(&mut commands, parts.into_iter());
            expected += 1;
        }
        if settings.db() != 0 {
            resp::write(&mut commands, [&b"SELECT"[..], settings.db().to_string().as_bytes()].into_iter());
            expected += 1;
        }
        self.request(&commands, expected).await
    }

    /// Sends commands, each of which returns a text or a number, and waits for all replies; an error ends the wait. Has
    /// no timeout of its own, and nothing else may be under way on the connection.
    pub(crate) async fn request(&mut self, commands: &[u8], mut expected: usize) -> io::Result<()> {
        self.writes.write_all(commands).await?;
        self.writes.flush().await?;
        let mut replies = BytesMut::new();
        while expected > 0 {
            let mut items = RespItems::new(&replies, MAX_TEXT);
            let is_complete = match items.next() {
                Ok(RespItem::Text(_) | RespItem::Number(_)) => true,
                Ok(RespItem::Error(reason)) => return Err(io::Error::other(String::from_utf8_lossy(reason))),
                Err(RespError::Incomplete) => false,
                Ok(RespItem::Nil | RespItem::List(_) | RespItem::TooLong(_)) | Err(RespError::Malformed) => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "the server does not speak RESP"));
                }
            };
            if is_complete {
                let read = items.read();
                replies.advance(read);
                expected -= 1;
            } else if self.reads.read_buf(&mut replies).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Messages are small and latency counts: with Nagle's algorithm one would wait for the ack of the one before it.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Trusts the root certificates of the system, as the other connections do.
#[cfg(feature = "tls")]
async fn secure(host: &str, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    use std::sync::Arc;

    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Cannot be reached: an address with TLS was refused by [`RedisClient::open`](crate::RedisClient::open).
#[cfg(not(feature = "tls"))]
async fn secure(_: &str, _: TcpStream) -> io::Result<TcpStream> {
    Err(ErrorKind::Unsupported.into())
}

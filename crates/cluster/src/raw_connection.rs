//! A connection to Redis as plain bytes, for the two that carry every message between nodes.

use std::io::{self, ErrorKind};

use bytes::{Buf, BytesMut};
use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::resp::{self, Item, Items, Stop};

/// The end at which Redis answers.
pub(crate) type Reads = Box<dyn AsyncRead + Send + Unpin>;

/// The end at which commands go in.
pub(crate) type Writes = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that is logged in.
pub(crate) struct RawConnection {
    pub(crate) reads: Reads,
    pub(crate) writes: Writes,
}

impl RawConnection {
    /// Connects and logs in. Without a bound in time: that is the caller's.
    pub(crate) async fn open(info: &ConnectionInfo) -> io::Result<Self> {
        let mut link = match info.addr() {
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
        link.log_in(info.redis_settings()).await?;
        Ok(link)
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
        self.writes.write_all(&commands).await?;
        self.writes.flush().await?;
        let mut answers = BytesMut::new();
        while expected > 0 {
            let mut items = Items::new(&answers, 0);
            let is_complete = match items.next() {
                Ok(Item::Text(_)) => true,
                Ok(Item::Refused(reason)) => return Err(io::Error::other(String::from_utf8_lossy(reason))),
                Err(Stop::Incomplete) => false,
                Ok(Item::Number(_) | Item::Nil | Item::List(_) | Item::TooLong(_)) | Err(Stop::Malformed) => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "what answers is no redis"));
                }
            };
            if is_complete {
                let read = items.read();
                answers.advance(read);
                expected -= 1;
            } else if self.reads.read_buf(&mut answers).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // A message is small and somebody waits for it: it must not wait for the answer to the one before it.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Believes whom the system believes, as the other connections do.
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

/// An address with TLS was refused before it came here.
#[cfg(not(feature = "tls"))]
async fn secure(_: &str, _: TcpStream) -> io::Result<TcpStream> {
    Err(ErrorKind::Unsupported.into())
}

//! The control: a program in the node's thread that takes a part of its core, and a client of it that never speaks to the
//! node.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::abusers::{Abuse, abuse};

/// How long each of its requests takes, and the pause after it.
const BURN: Duration = Duration::from_micros(20);
const PAUSE: Duration = Duration::from_millis(1);

/// Serves one connection after the other.
pub(super) async fn serve(listener: TcpListener) -> Infallible {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        while stream.read_u8().await.is_ok() {
            let ends = Instant::now() + BURN;
            while Instant::now() < ends {}
            if stream.write_u8(0).await.is_err() {
                break;
            }
        }
    }
}

/// A client that uses it again and again.
pub(super) async fn take(addr: SocketAddr) -> Abuse {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    abuse(format!("{BURN:?} again and again"), async move {
        loop {
            stream.write_u8(0).await.unwrap();
            stream.read_u8().await.unwrap();
            sleep(PAUSE).await;
        }
    })
}

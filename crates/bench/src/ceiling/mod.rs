//! Ceilings: bare servers that do the minimum for the same bytes, with which a node is compared.

mod fanout;
mod http;
pub(crate) mod queue;
pub(crate) mod redis;
mod socket;

use clap::ValueEnum;
use tokio::net::TcpListener;

use crate::Anyhow;

/// A bare server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A bare axum handler that writes the same JSON and the same headers.
    Http,
    /// A bare axum socket that answers each frame with the same frame, one write each.
    Socket,
    /// A loop that writes a frame, encoded once, to every member: one write each.
    Fanout,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socket => "socket",
            Self::Fanout => "fanout",
        }
    }
}

/// Serves until it is killed.
pub(crate) async fn serve(kind: Kind, headers: &[String]) -> Result<(), Anyhow> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    match kind {
        Kind::Http => http::serve(listener, headers).await,
        Kind::Socket => socket::serve(listener).await,
        Kind::Fanout => fanout::serve(listener).await,
    }
}

//! The load: clients that check every answer and cost little CPU beside the server.

pub(crate) mod fanout;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod socket;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::Anyhow;
use crate::row::Row;

/// Longer than any answer takes; an answer that is later is lost.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the clients' thread from sleeping. Waking it would cost a server more than its answer, and a faster server
/// would have to do it less often: the ratio would measure how busy the clients are.
struct Awake(JoinHandle<()>);

impl Awake {
    fn keep() -> Self {
        Self(tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        }))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The connected clients of one row.
pub(crate) enum Load {
    Http(http::Clients),
    Socket(socket::Clients),
    Fanout(fanout::Room),
}

impl Load {
    /// Connects the clients of a row.
    pub(crate) async fn connect(row: Row, addr: SocketAddr) -> Result<Self, Anyhow> {
        Ok(match row {
            Row::Http => Self::Http(http::Clients::connect(addr, 64).await?),
            Row::Ws1 => Self::Socket(socket::Clients::connect(addr, 64, 1).await?),
            Row::Ws4 => Self::Socket(socket::Clients::connect(addr, 64, 4).await?),
            Row::Fan200 => Self::Fanout(fanout::Room::connect(addr, 200, 1, 1).await?),
            Row::Fan1000 => Self::Fanout(fanout::Room::connect(addr, 1000, 1, 1).await?),
            Row::Burst => Self::Fanout(fanout::Room::connect(addr, 200, 8, 4).await?),
            Row::Idle | Row::IdleLarge => return Err("idle sockets are no load".into()),
            Row::Apply1 | Row::Apply32 | Row::ApplyLocal => return Err("calls have a load of their own".into()),
            Row::Tasks1 | Row::Tasks10 | Row::Tasks100 | Row::TasksSynced => return Err("jobs have no clients".into()),
        })
    }

    /// Runs for the duration of `span` and returns the number of operations. A wrong answer is an error.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let _awake = Awake::keep();
        let limit = span + TIMEOUT;
        let done = async {
            match self {
                Self::Http(clients) => clients.run(span).await,
                Self::Socket(clients) => clients.run(span).await,
                Self::Fanout(room) => room.run(span).await,
            }
        };
        tokio::time::timeout(limit, done).await.map_err(|_| "an answer is missing")?
    }
}

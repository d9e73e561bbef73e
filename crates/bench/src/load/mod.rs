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

/// The call that the clients of a load repeat: of an action that answers with its parameter `text`.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) action: &'static str,
    /// The value of the header `cookie`.
    pub(crate) cookie: String,
}

impl Target {
    /// That of nodes and ceilings.
    pub(crate) fn echo() -> Self {
        Self { action: "echo", cookie: http::COOKIE.to_owned() }
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
        let echo = Target::echo();
        Ok(match row {
            Row::Http => Self::Http(http::Clients::connect(addr, &echo, 64).await?),
            Row::Ws1 => Self::Socket(socket::Clients::connect(addr, &echo, 64, 1).await?),
            Row::Ws4 => Self::Socket(socket::Clients::connect(addr, &echo, 64, 4).await?),
            Row::Fan200 => Self::Fanout(fanout::Room::connect(addr, 200, 1, 1).await?),
            Row::Fan1000 => Self::Fanout(fanout::Room::connect(addr, 1000, 1, 1).await?),
            Row::Burst => Self::Fanout(fanout::Room::connect(addr, 200, 8, 4).await?),
            Row::Idle | Row::IdleLarge => return Err("idle sockets are no load".into()),
            Row::Apply1 | Row::Apply32 | Row::ApplyLocal => return Err("calls have a load of their own".into()),
            Row::Tasks1 | Row::Tasks10 | Row::Tasks100 | Row::TasksSynced | Row::TasksLimited => {
                return Err("jobs have no clients".into());
            }
            _ => return Err("rows about sessions and limits have targets of their own".into()),
        })
    }

    /// Runs for the duration of `span` and returns the number of operations. A wrong answer is an error.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let _awake = Awake::keep();
        let limit = span + TIMEOUT;
        let done = async {
            match self {
                Self::Http(clients) => clients.run(span, 0).await,
                Self::Socket(clients) => clients.run(span, 0).await,
                Self::Fanout(room) => room.run(span).await,
            }
        };
        tokio::time::timeout(limit, done).await.map_err(|_| "an answer is missing")?
    }

    /// Makes so many calls with each client, which is a multiple of 16, however long they take.
    pub(crate) async fn call(&mut self, calls: u64) -> Result<u64, Anyhow> {
        match self {
            Self::Http(clients) => clients.run(Duration::ZERO, calls).await,
            Self::Socket(clients) => clients.run(Duration::ZERO, calls).await,
            Self::Fanout(_) => Err("a room has no calls".into()),
        }
    }
}

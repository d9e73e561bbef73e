//! Messages to a tag of many sockets, and how long the calls of others take meanwhile.
//!
//! Two nodes run, of which one has the crowd. A client calls both in turn, so that other load of the machine, which includes
//! the clients of the crowd, affects both alike.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Anyhow;
use crate::compare::Effort;
use crate::load::wire::Socket;
use crate::load::{TIMEOUT, Target, http};
use crate::process::Server;
use crate::report::{Measured, middle};
use crate::row::Row;

/// The time between two messages to the tag.
const EVERY: Duration = Duration::from_secs(1);

/// The messages of a round.
const MESSAGES: u32 = 2;

/// Measures the row: the 99th percentile of a call beside the crowd, and alone.
pub(crate) async fn measure(row: Row, sockets: usize, effort: Effort) -> Result<Measured, Anyhow> {
    let (quiet, busy) = (Server::node(None).await?, Server::node(None).await?);
    let crowd = Crowd::gather(busy.addr, sockets).await?;
    let target = Target { action: "plain", cookie: http::COOKIE.to_owned() };
    let mut alone = http::Clients::connect(quiet.addr, &target, 1).await?;
    let mut beside = http::Clients::connect(busy.addr, &target, 1).await?;
    let (mut values, mut our_times, mut their_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let end = Instant::now() + MESSAGES * EVERY;
        let (mut our, mut their) = (Vec::new(), Vec::new());
        while Instant::now() < end || our.len() < 100 {
            their.push(time_of(&mut alone).await?);
            our.push(time_of(&mut beside).await?);
        }
        let (our, their) = (percentile_99(our), percentile_99(their));
        values.push(our / their);
        our_times.push(our);
        their_times.push(their);
    }
    crowd.leave().await?;
    Ok(Measured::median(row, Some((middle(&mut our_times), middle(&mut their_times))), values))
}

async fn time_of(client: &mut http::Clients) -> Result<f64, Anyhow> {
    let called = Instant::now();
    client.call_once().await?;
    Ok(called.elapsed().as_secs_f64() * 1e6)
}

fn percentile_99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

/// The sockets of a tag, on a thread of their own, each of which receives every message.
struct Crowd {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), Anyhow>>,
}

impl Crowd {
    /// Returns when all have the tag, and messages are sent.
    async fn gather(addr: SocketAddr, sockets: usize) -> Result<Self, Anyhow> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut members = Vec::new();
                for _ in 0..sockets {
                    let mut socket = Socket::connect(addr).await?;
                    socket.send(r#"{"event":"action","params":{"action":"join"}}"#).await?;
                    socket.reader.next().await?;
                    members.push(socket);
                }
                let mut reading: JoinSet<_> = members.into_iter().map(receive_messages).collect();
                let target = Target { action: "shout", cookie: http::COOKIE.to_owned() };
                let sending = shout(http::Clients::connect(addr, &target, 1).await?);
                let _ = ready.send(());
                tokio::select! {
                    failed = sending => failed,
                    failed = reading.join_next() => failed.ok_or("there is no crowd")??,
                    _ = stopped => Ok(()),
                }
            })
        });
        match is_ready.await {
            Ok(()) => Ok(Self { stop, thread }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| "the crowd has ended".into())),
        }
    }

    async fn leave(self) -> Result<(), Anyhow> {
        let _ = self.stop.send(());
        tokio::task::spawn_blocking(|| join(self.thread)).await?
    }
}

fn join(thread: JoinHandle<Result<(), Anyhow>>) -> Result<(), Anyhow> {
    thread.join().map_err(|_| "the crowd panicked")?
}

/// Ends with an error if a message does not come.
async fn receive_messages(mut socket: Socket) -> Result<(), Anyhow> {
    loop {
        let message = tokio::time::timeout(TIMEOUT, socket.reader.next()).await;
        message.map_err(|_| "a message to the tag is missing")??;
    }
}

async fn shout(mut client: http::Clients) -> Result<(), Anyhow> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        client.call_once().await?;
    }
}

//! Calls from one node to another, compared with the minimum over the same Redis: one program publishes, another one
//! publishes a reply.

use std::time::Duration;

use phalanx::{App, ConnectionId, Node, RunningApp};
use phalanx_testkit::Redis;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Anyhow;
use crate::ceiling::redis::Caller;
use crate::compare::Effort;
use crate::load::wire::Socket;
use crate::process::Server;
use crate::report::{Measured, middle};
use crate::row::Row;

/// The server token of both nodes.
pub(crate) const TOKEN: &str = "bench";

/// A node in this process, another one in its own process, and a socket of each.
struct Pair {
    node: RunningApp,
    far: ConnectionId,
    near: ConnectionId,
    _sockets: [Socket; 2],
    _other: Server,
}

impl Pair {
    async fn start(binary: &std::path::Path, redis: &Redis) -> Result<Self, Anyhow> {
        let other = Server::tour_in_cluster(binary, &redis.url()).await?;
        let mut config = phalanx::config::Config::default();
        config.general.server_token = TOKEN.to_owned();
        config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
        config.web.port = 0;
        config.web.access_log = false;
        config.admin.bind = String::new();
        let node = App::new("tour").start_in_cluster(config, &redis.url()).await?;
        let (far, near) = (Socket::connect(other.addr).await?, Socket::connect(node.addr()).await?);
        let id = |socket: &Socket| ConnectionId::parse(&socket.id).map_err(|error| error.message().to_owned());
        Ok(Self { far: id(&far)?, near: id(&near)?, node, _sockets: [far, near], _other: other })
    }
}

/// Measures one of the rows for calls.
pub(crate) async fn measure(binary: &std::path::Path, row: Row, effort: Effort) -> Result<Measured, Anyhow> {
    let redis = Redis::start().await;
    let pair = Pair::start(binary, &redis).await?;
    let node = pair.node.node().clone();
    if row == Row::ApplyLocal {
        let mut values = Vec::new();
        for _ in 0..effort.rounds {
            values.push(local(&node, &pair.near, effort.span).await?);
        }
        return Ok(Measured::median(row, None, values));
    }
    let _echo = Server::redis_echo(redis.addr()).await?;
    let mut caller = Caller::connect(redis.addr()).await?;
    let in_flight = if row == Row::Apply1 { 1 } else { 32 };
    ours(&node, &pair.far, in_flight, effort.span).await?;
    caller.run(in_flight, effort.span).await?;
    let (mut values, mut our_times, mut their_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        let (our, their);
        if round % 2 == 0 {
            our = ours(&node, &pair.far, in_flight, effort.span).await?;
            their = caller.run(in_flight, effort.span).await?;
        } else {
            their = caller.run(in_flight, effort.span).await?;
            our = ours(&node, &pair.far, in_flight, effort.span).await?;
        }
        values.push(our / their);
        our_times.push(our);
        their_times.push(their);
    }
    Ok(Measured::median(row, Some((middle(&mut our_times), middle(&mut their_times))), values))
}

/// The microseconds of a call to the other node, as [`per_call`] computes them.
async fn ours(node: &Node, far: &ConnectionId, in_flight: usize, span: Duration) -> Result<f64, Anyhow> {
    let started = Instant::now();
    let mut calling = JoinSet::new();
    for _ in 0..in_flight {
        let (connections, far) = (node.connections().clone(), far.clone());
        calling.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < span {
                let called = Instant::now();
                connections.apply(&far, "set", json!(["k", 1])).await.map_err(|error| error.to_string())?;
                times.push(called.elapsed());
            }
            Ok::<_, String>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = calling.join_next().await {
        times.extend(done??);
    }
    per_call(times, in_flight, started.elapsed())
}

/// The microseconds of a call: the median if there is one at a time, else the total time divided by the number of
/// calls.
pub(crate) fn per_call(mut times: Vec<Duration>, in_flight: usize, took: Duration) -> Result<f64, Anyhow> {
    times.sort_unstable();
    let middle = *times.get(times.len() / 2).ok_or("no call was answered")?;
    let time = if in_flight == 1 { middle } else { took / times.len() as u32 };
    Ok(time.as_secs_f64() * 1e6)
}

/// The nanoseconds of a call to a connection of the same node.
async fn local(node: &Node, near: &ConnectionId, span: Duration) -> Result<f64, Anyhow> {
    let (started, mut calls) = (Instant::now(), 0_u32);
    while calls % 1024 != 0 || calls == 0 || started.elapsed() < span {
        let set = node.connections().apply(near, "set", json!(["k", 1])).await;
        set.map_err(|error| error.to_string())?;
        calls += 1;
    }
    Ok(started.elapsed().as_nanos() as f64 / f64::from(calls))
}

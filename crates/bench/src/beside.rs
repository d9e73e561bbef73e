//! A call that reads a session, or has a limit, compared with the same call without, on the same node: the CPU time of the
//! node, and the round trips to Redis.

use std::net::SocketAddr;

use phalanx_testkit::Redis;
use tokio::time::Instant;

use crate::Anyhow;
use crate::compare::{Effort, alternate};
use crate::load::{Load, Target, http, socket};
use crate::process::Server;
use crate::report::Measured;
use crate::row::{Beside, Row};

/// The clients of a load.
const CLIENTS: usize = 64;

/// The calls whose round trips are counted.
const CALLS: u64 = 256;

/// More than a node has in a second besides: it renews its lease.
const OTHERS: u64 = 20;

/// Measures one of the rows about sessions and limits.
pub(crate) async fn measure(row: Row, beside: Beside, effort: Effort) -> Result<Measured, Anyhow> {
    let redis = if beside.on_redis { Some(Redis::start().await) } else { None };
    // The node has the name `bench`, and the user of `Redis::url` rights to the keys of other clusters only.
    let url = redis.as_ref().map(|redis| format!("redis://{}", redis.addr()));
    let node = Server::node(url.as_deref()).await?;
    let cookie = format!("{}; {}", http::COOKIE, http::new_cookie(node.addr, "/api/enter").await?);
    let [with, without] = [beside.action, "plain"].map(|action| Target { action, cookie: cookie.clone() });
    if let Some(redis) = &redis {
        let each = round_trips(redis, &mut connect(beside, node.addr, &with, 1).await?, 1).await?;
        let bare = round_trips(redis, &mut connect(beside, node.addr, &without, 1).await?, 0).await?;
        eprintln!("  {each:.2} round trips to Redis for a call, {bare:.2} without");
    }
    let mut with = connect(beside, node.addr, &with, CLIENTS).await?;
    let mut without = connect(beside, node.addr, &without, CLIENTS).await?;
    alternate(row, (&node, &mut with), (&node, &mut without), effort).await
}

async fn connect(beside: Beside, addr: SocketAddr, target: &Target, clients: usize) -> Result<Load, Anyhow> {
    Ok(if beside.over_websocket {
        Load::Socket(socket::Clients::connect(addr, target, clients, 1).await?)
    } else {
        Load::Http(http::Clients::connect(addr, target, clients).await?)
    })
}

/// The round trips to Redis of a call, those of other work of the node included. One client calls at a time, so that its calls
/// do not share any: Redis reads each by itself.
///
/// # Errors
///
/// They are not as many as expected.
async fn round_trips(redis: &Redis, one_client: &mut Load, expected: u64) -> Result<f64, Anyhow> {
    let (before, start) = (reads(redis).await?, Instant::now());
    one_client.call(CALLS).await?;
    let reads = reads(redis).await? - before;
    let others = 20 + OTHERS * start.elapsed().as_secs();
    if !(expected * CALLS..=expected * CALLS + others).contains(&reads) {
        return Err(format!("{CALLS} calls cost {reads} round trips to Redis, {expected} each expected").into());
    }
    Ok(reads as f64 / CALLS as f64)
}

/// How often Redis has read from a connection.
async fn reads(redis: &Redis) -> Result<u64, Anyhow> {
    let stats = redis.command("INFO stats").await;
    let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    Ok(reads.ok_or("Redis counts no reads")?.trim().parse()?)
}

//! The promises of recovery: in a short form, and in full size with `ROUNDS=2` or more (`just chaos`).

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::ErrorKind;
use phalanx_testkit::{Proxy, Redis, check_time, print};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::recovery::{BACK, LargeNode, is_full_size, members, until, until_within};

/// A wait that is longer has hung.
const HANG: Duration = Duration::from_secs(20);

/// The documented time for a hundred nodes of 4,000 members, and for the longest renewal of a lease meanwhile.
const REFILLED: Duration = Duration::from_secs(5);
const RENEWED: Duration = Duration::from_millis(500);

/// The documented time for 200,000 memberships of a node.
const REMOVED: Duration = Duration::from_secs(6);

/// The time within which the members of a dead node are gone. Reapers hold back for some of it after an empty Redis.
const REAPED: Duration = Duration::from_secs(8);

/// Starts nodes with that many members each in a room.
async fn nodes_with(redis: &Redis, count: usize, room: &str, each: usize) -> Vec<LargeNode> {
    let mut nodes = Vec::with_capacity(count);
    for number in 0..count {
        let mut node = LargeNode::start_at(&redis.url(), &format!("n{number}")).await;
        node.join(room, each).await;
        nodes.push(node);
    }
    nodes
}

/// The seconds of processor time that Redis has taken.
pub(crate) async fn processor_time(redis: &Redis) -> f64 {
    let info = redis.command("INFO cpu").await;
    let of = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    of("used_cpu_sys:") + of("used_cpu_user:")
}

/// The memory of this process in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

/// Stops all at once: of a hundred nodes each takes seconds.
async fn stop(nodes: Vec<LargeNode>) {
    let mut stopping = JoinSet::new();
    for node in nodes {
        stopping.spawn(async move { node.engine.stop().await });
    }
    stopping.join_all().await;
}

/// 5: nobody is renamed, who left since is not listed, who joined since is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_nodes_restore_what_older_data_lacks() {
    let (count, each, changed) = if is_full_size() { (8, 1875, 500) } else { (3, 200, 30) };
    let mut redis = Redis::start().await;
    let mut nodes = nodes_with(&redis, count, "r", each).await;
    let generations: Vec<_> = nodes.iter().map(|node| node.engine.node().generation()).collect();
    redis.keep();
    let kept = Instant::now();
    nodes[0].disconnect(changed).await;
    nodes[1].join("r", changed).await;
    let age = Duration::from_secs(if is_full_size() { 8 } else { 2 });
    sleep(age.saturating_sub(kept.elapsed())).await; // the age of the data is the fault
    redis.kill().await;
    redis.start_older().await;
    let (back, before) = (Instant::now(), processor_time(&redis).await);
    let is_as_held = async || {
        let mut stored = 0;
        for generation in &generations {
            let reply = redis.command(&format!("HLEN phalanx:laws:held:{generation}")).await;
            stored += reply.trim_start_matches(':').trim().parse::<usize>().unwrap();
        }
        let expected = [each - changed, each + changed];
        let listed = [0, 1].map(|node: usize| &nodes[node]).map(|node| node.connections.len());
        stored == count * each && members(&redis, "r").await == count * each && listed == expected
    };
    let restored = async {
        // Joined and left are the same number: only the ids tell.
        let joined = nodes[1].connections.last().unwrap().id().to_string();
        loop {
            let is_listed = redis.command(&format!("HEXISTS actionhero:chatRoom:members:r {joined}")).await == ":1\r\n";
            let is_gone = redis.command("HEXISTS actionhero:chatRoom:members:r n0-0").await == ":0\r\n";
            if is_listed && is_gone && is_as_held().await {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANG, restored).await.expect("the list is as the nodes hold it");
    let (took, spent) = (back.elapsed(), processor_time(&redis).await - before);
    let total = count * each;
    print(format_args!(
        "5: {count} nodes, {total} members, data {age:?} old: {took:?}, {:.0} ms of redis",
        spent * 1e3
    ));
    check_time("5: listed as held", took, BACK);
    for (node, generation) in nodes.iter().zip(&generations) {
        assert_eq!(node.engine.node().generation(), *generation, "it was not renamed");
        assert!(node.connections.iter().all(|connection| connection.closing().is_none()), "no socket is closed");
    }
    stop(nodes).await;
}

/// 7: many nodes in this process, each with a connection of its own to Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_refill_an_empty_redis() {
    let (count, each) = if is_full_size() { (100, 4000) } else { (10, 50) };
    let redis = Redis::start().await;
    let nodes = nodes_with(&redis, count, "r", each).await;
    let generations: Vec<_> = nodes.iter().map(|node| node.engine.node().generation()).collect();
    for node in &nodes {
        node.longest_renewal.take();
    }
    redis.command("FLUSHALL ASYNC").await; // to free 400,000 members takes Redis half a second otherwise
    let emptied = Instant::now();
    let refilled = async {
        while members(&redis, "r").await != count * each {
            assert!(!nodes.iter().any(|node| node.engine.node().is_fenced()), "a node is fenced");
            sleep(Duration::from_millis(10)).await;
        }
    };
    // A debug build with all nodes in one process.
    timeout(3 * HANG, refilled).await.expect("all are listed again");
    check_time(&format!("7: {count} nodes of {each} members refill an empty redis"), emptied.elapsed(), REFILLED);
    let longest = nodes.iter().map(|node| node.longest_renewal.take()).max().unwrap();
    check_time("7: the longest renewal meanwhile", longest, RENEWED);
    for (node, generation) in nodes.iter().zip(&generations) {
        assert_eq!(node.engine.node().generation(), *generation, "no lease was lost");
    }
    stop(nodes).await;
}

/// 8: in a room without presence a leave while Redis is away takes no memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_while_redis_is_away_are_neither_dropped_nor_kept() {
    let count = if is_full_size() { 200_000 } else { 2_000 };
    let mut redis = Redis::start().await;
    let mut node = LargeNode::start_at(&redis.url(), "one").await;
    node.join("r", count).await;
    redis.kill().await;
    // Once the lease may be reaped each leave waits a moment for Redis, so many leave at once. They have a future each
    // meanwhile, which is no memory of their leaves: the first group takes it, and the others use it again.
    let together = count / 10;
    node.disconnect(together).await;
    let before = memory();
    for _ in 1..10 {
        node.disconnect(together).await;
    }
    let after = memory();
    redis.start_again().await;
    let took = until_within(&redis, "r", 0, REMOVED).await;
    check_time(&format!("8: {count} leaves while away, once redis is back"), took, REMOVED);
    print(format_args!("8: memory {before} MiB before, {after} MiB after"));
    // In the short form other tests run in this process.
    assert!(!is_full_size() || after < before + 16, "a leave takes no memory");
    let stored = redis.command(&format!("EXISTS phalanx:laws:held:{}", node.engine.node().generation())).await;
    assert_eq!(stored, ":0\r\n", "no ghost is stored");
    node.engine.stop().await;
}

/// 11: one node is late, and the room is only there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_a_slow_node_is_unavailable_and_not_unknown_after_a_loss() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut slow = LargeNode::start_at(&redis.url_through(proxy.addr()), "slow").await;
    let mut others = nodes_with(&redis, 2, "s", 1).await;
    let asked = Instant::now();
    let unknown = others[0].engine.node().rooms().join(&others[0].connections[0], "theirs").await.unwrap_err();
    let took = asked.elapsed();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "nothing was lost");
    slow.engine.node().rooms().create("theirs").await.unwrap();
    slow.join("theirs", 5).await;
    proxy.pause();
    let paused = Instant::now();
    redis.command("FLUSHALL").await;
    let (mut answers, mut tries) = (BTreeSet::new(), 0);
    let joined = loop {
        if paused.elapsed() > Duration::from_secs(3) {
            proxy.restore();
        }
        tries += 1;
        let node = &others[tries % 2];
        match node.engine.node().rooms().join(&node.connections[0], "theirs").await {
            Ok(()) => break paused.elapsed(),
            Err(error) => answers.insert(error.code().to_owned()),
        };
        assert!(paused.elapsed() < HANG, "{answers:?}");
        sleep(Duration::from_millis(2)).await;
    };
    print(format_args!("11: not_found after {took:?}; joined {joined:?} after the loss, {tries} tries: {answers:?}"));
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["unavailable"]);
    until(&redis, "theirs", 6).await;
    others.push(slow);
    stop(others).await;
}

/// The most presence frames that a member of these nodes has received so far.
async fn presence_frames(nodes: &[LargeNode]) -> usize {
    nodes[0].engine.node().rooms().say("p", "the last").await.unwrap();
    let mut most = 0;
    for node in nodes {
        let mut received = vec![Vec::new(); node.connections.len()];
        let has_all = |received: &[Vec<String>]| {
            received.iter().all(|frames| frames.last().is_some_and(|frame| frame.contains("the last")))
        };
        let arrived = async {
            while !has_all(&received) {
                received.iter_mut().zip(node.take_frames()).for_each(|(frames, more)| frames.extend(more));
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HANG, arrived).await.expect("all receive the message");
        let count = |frames: &Vec<String>| frames.iter().filter(|frame| frame.contains("\"presence\"")).count();
        most = received.iter().map(count).max().unwrap_or(0).max(most);
    }
    most
}

/// 12: an outage is not told to each member about each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_a_large_room_with_presence_few_frames() {
    let each = if is_full_size() { 500 } else { 60 };
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut nodes = nodes_with(&redis, 2, "p", 0).await;
    nodes.push(LargeNode::start_at(&redis.url_through(proxy.addr()), "cut").await);
    let all = 3 * each;
    for number in 0..all / 20 {
        nodes[number % 3].join("p", 20).await;
        presence_frames(&nodes[number % 3..=number % 3]).await;
        nodes.iter().for_each(|node| drop(node.take_frames()));
    }
    presence_frames(&nodes).await;
    redis.command("FLUSHALL").await;
    let took = until(&redis, "p", all).await;
    sleep(Duration::from_secs(2)).await; // a frame that comes later would be counted
    let empty = presence_frames(&nodes).await;
    print(format_args!("12: {all} members on an empty redis: {took:?}, {empty} presence frames"));
    assert_eq!(empty, 0);

    proxy.cut();
    until_within(&redis, "p", 2 * each, REAPED).await;
    sleep(Duration::from_secs(1)).await; // a frame that comes later would be counted
    let left = presence_frames(&nodes[..2]).await;
    proxy.restore();
    let took = until(&redis, "p", all).await;
    sleep(Duration::from_secs(2)).await; // a frame that comes later would be counted
    let joined = presence_frames(&nodes[..2]).await;
    print(format_args!("12: a node of {each} members reaped: {left} frames, back {took:?}: {joined}"));
    assert!((1..=3).contains(&left) && (1..=3).contains(&joined), "{left} and {joined} frames");
    let is_open = |node: &LargeNode| node.connections.iter().all(|connection| connection.closing().is_none());
    assert!(nodes.iter().all(is_open), "no socket is closed");
    stop(nodes).await;
}

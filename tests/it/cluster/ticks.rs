//! Periodic tasks of nodes that die, without workers, and over a Redis that loses its data or whose clock was set.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_testkit::{Process, Redis, Signal, check_time};
use tokio::time::{Instant, sleep, timeout};

use super::SOON;

/// Ticks of the short form; `just chaos` asks for fifteen a round, 300 of twenty.
const TICKS: usize = 12;

fn wanted() -> usize {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse::<usize>().ok());
    rounds.map_or(TICKS, |rounds| (15 * rounds).max(TICKS))
}

async fn start_node(url: &str, title: &str, ticks: &str, workers: &str) -> Process {
    let environment = [("REDIS_URL", url), ("PHALANX_TITLE", title), ("TOUR_TICKS", ticks), ("TOUR_WORKERS", workers)];
    Process::start("tour", &environment).await
}

/// The ticks that ran, by their second, in the order in which they did.
async fn ran(redis: &Redis) -> Vec<u64> {
    let reply = redis.command("LRANGE actionhero:cache:ticks 0 -1").await;
    let tick = |line: &str| line.split("tick@").nth(1)?.trim_matches(['"', '}']).parse::<u64>().ok();
    reply.lines().filter_map(tick).map(|tick_ms| tick_ms / 1000).collect()
}

/// Waits for a condition about the ticks that ran; returns these.
async fn until_ran(redis: &Redis, condition: &str, is_true: impl Fn(&[u64]) -> bool) -> Vec<u64> {
    let waiting = async {
        loop {
            let ran = ran(redis).await;
            if is_true(&ran) {
                return ran;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{condition}"))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Waits for so many ms after a whole second.
async fn until_ms_of_second(ms: u64) {
    sleep(Duration::from_millis((1000 + ms - now_ms() % 1000) % 1000)).await;
}

/// A node is killed every two seconds, at another part of the second each time, and replaced.
#[tokio::test]
async fn each_tick_runs_once_while_nodes_are_killed() {
    let redis = Redis::start().await;
    let url = redis.url();
    let start = async |number: usize| start_node(&url, &format!("n{number}"), "all", "4").await;
    let mut nodes = vec![start(0).await, start(1).await, start(2).await];
    until_ran(&redis, "it ticks", |ran| !ran.is_empty()).await;
    let (mut killed, began) = (Vec::new(), Instant::now());
    while ran(&redis).await.len() < wanted() {
        let kill = killed.len();
        until_ms_of_second(kill as u64 * 130 % 1000).await;
        let node = nodes.remove(0);
        node.signal(Signal::KILL);
        killed.push(now_ms());
        let (replaced, ()) = tokio::join!(start(3 + kill), sleep(Duration::from_millis(1500)));
        nodes.push(replaced);
    }
    // The jobs of the last nodes that were killed have been given back once one of each later second has run.
    let end = now_ms() / 1000;
    let runs = until_ran(&redis, "all up to the end ran", |ran| {
        let distinct: BTreeSet<u64> = ran.iter().copied().collect();
        distinct.range(..=end).count() as u64 == end - ran[0].min(*distinct.first().unwrap()) + 1
    })
    .await;
    let mut ordered: Vec<u64> = runs.into_iter().filter(|tick| *tick <= end).collect();
    ordered.sort_unstable();
    let twice: Vec<u64> = ordered.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let distinct = ordered.len() - twice.len();
    println!("{distinct} ticks in {:?}, {} nodes killed, run twice: {twice:?}", began.elapsed(), killed.len());
    // An attempt that was in flight on a killed node may have done its work.
    for tick in &twice {
        assert!(killed.iter().any(|at| (tick * 1000..tick * 1000 + 1500).contains(at)), "{tick} ran twice: {killed:?}");
    }
    assert!(twice.len() <= killed.len() && distinct >= wanted(), "{distinct} {twice:?}");
}

/// A weekend without workers leaves one job, and they go on with the newest tick.
#[tokio::test]
async fn without_workers_one_tick_waits() {
    let redis = Redis::start().await;
    let url = redis.url();
    let idle = async |title: &str| start_node(&url, title, "1", "0").await;
    let _nodes = [idle("one").await, idle("other").await];
    let last_tick = async || -> u64 {
        let field = redis.command("HGET phalanx:tour:ticks tick").await;
        field.lines().nth(1).and_then(|field| field.split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let length = async || redis.command("LLEN resque:queue:default").await;
    let first = until_last(&last_tick, 0).await;
    let last = until_last(&last_tick, first + 5000).await;
    assert_eq!(length().await, ":1\r\n", "{first} to {last}");
    let _worker = start_node(&url, "worker", "1", "4").await;
    let ran = until_ran(&redis, "they go on", |ran| ran.len() >= 3).await;
    println!("{} ticks passed, one waited; then {ran:?}", (last - first) / 1000);
    assert!(ran[1] * 1000 > last && ran[2] == ran[1] + 1, "{ran:?}");
}

async fn until_last(last_tick: &impl AsyncFn() -> u64, after: u64) -> u64 {
    let waiting = async {
        loop {
            let last = last_tick().await;
            if last > after {
                return last;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect("the last tick rises")
}

/// The clock of Redis goes forward by an hour, back, back by an hour, and forward again.
#[tokio::test]
async fn ticks_go_on_within_one_interval_after_the_clock_was_set() {
    let redis = Redis::start_with_clock().await;
    let url = redis.url();
    let _nodes = [start_node(&url, "one", "1", "4").await, start_node(&url, "other", "1", "4").await];
    until_ran(&redis, "it ticks", |ran| ran.len() >= 2).await;
    for (step, ahead) in [3600, 0, -3600, 0].into_iter().enumerate() {
        until_ms_of_second(300 * step as u64).await;
        let count = ran(&redis).await.len();
        redis.set_clock(ahead);
        let began = Instant::now();
        let is_of_now = |tick: &&u64| tick.abs_diff((now_ms() / 1000).saturating_add_signed(ahead)) <= 2;
        let runs = until_ran(&redis, "ticks go on", |ran| ran[count..].iter().filter(is_of_now).count() >= 3).await;
        let took = began.elapsed();
        println!("the clock is set to {ahead:+} s: {:?}, the third after {took:?}", &runs[count..]);
        // Nodes learn the time with their next renewal, within a second.
        check_time("three ticks of a second after the clock was set", took, Duration::from_secs(4));
        assert!(runs.len() - count < 100, "the hour is not caught up with: {:?}", &runs[count..]);
    }
}

/// Emptied, and back with older data: at most one tick is skipped, none repeated.
#[tokio::test]
async fn a_redis_that_lost_its_data_repeats_no_tick() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    // Of ticks that may overlap none is skipped because the end of an earlier one was lost with a connection.
    let _nodes = [start_node(&url, "one", "all", "4").await, start_node(&url, "other", "all", "4").await];
    for fault in ["emptied", "older"] {
        let from = ran(&redis).await.len();
        until_ran(&redis, "it ticks", |ran| ran.len() >= from + 2).await;
        if fault == "older" {
            until_ms_of_second(500).await; // no job of a tick waits in the data
            redis.keep();
            let kept = ran(&redis).await.len();
            until_ran(&redis, "it ticks", |ran| ran.len() >= kept + 3).await;
        }
        until_ms_of_second(400).await;
        let before = ran(&redis).await;
        let last = *before.last().unwrap();
        if fault == "emptied" {
            redis.command("FLUSHALL").await;
        } else {
            redis.kill().await;
            redis.start_older().await;
        }
        let (began, at) = (Instant::now(), now_ms());
        let kept = ran(&redis).await.len();
        let runs = until_ran(&redis, "ticks go on", |ran| ran.len() >= kept + 3).await;
        let mut new = runs[kept..].to_vec();
        new.sort_unstable(); // attempts run beside each other
        println!("{fault}: the last tick was {last}, then {new:?}, the third after {:?}", began.elapsed());
        assert!(new.iter().all(|tick| *tick > last), "{fault}: a tick ran again: {last}, {new:?}");
        assert_eq!((new[1], new[2]), (new[0] + 1, new[0] + 2), "{fault}");
        assert!(new[0] <= at / 1000 + 2, "{fault}: at most one is skipped: {at} {new:?}");
    }
}

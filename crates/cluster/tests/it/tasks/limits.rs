//! The counts of queues with limits, in Redis.

use std::time::Duration;

use phalanx_core::backend::{AttemptEnd, FetchedJob, LimitedQueue, NewJob, QueueLimits, Settlement, WorkerReply};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use phalanx_testkit::{COMMANDS, Redis};
use tokio::time::{sleep, timeout};

const HELD: &str = "phalanx:laws:held:q";

async fn call(worker: &LawWorker, ends: &[FetchedJob], wanted: usize) -> WorkerReply {
    let limits = QueueLimits { running: Some(3), ..QueueLimits::NONE };
    let limited: &'static [LimitedQueue] = Box::leak(Box::new([LimitedQueue::new("q", limits)]));
    let ends: Vec<Settlement> = ends.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
    worker.call(&ends, wanted, |call| call.limited = limited).await
}

async fn counted(redis: &Redis) -> String {
    redis.command(&format!("HGET {HELD} {}", nodes()[0])).await.lines().nth(1).unwrap_or("0").to_owned()
}

async fn fill(store: &std::sync::Arc<dyn phalanx_core::backend::TaskStore>) {
    enqueue_many(store, 9).await;
}

async fn enqueue_many(store: &std::sync::Arc<dyn phalanx_core::backend::TaskStore>, count: usize) {
    let jobs: Vec<NewJob> = (0..count).map(|number| job(&number.to_string())).collect();
    for chunk in jobs.chunks(500) {
        enqueue(store, chunk).await;
    }
}

/// Polls until a call fetches so many.
async fn until_fetched(worker: &LawWorker, count: usize) -> Vec<FetchedJob> {
    let fetching = async {
        loop {
            let fetched = call(worker, &[], count).await.fetched;
            if fetched.len() == count {
                return fetched;
            }
            assert_eq!(fetched, []);
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), fetching).await.expect("jobs are fetched")
}

/// Also between the moments, one each second, at which it is counted anew.
#[tokio::test]
async fn the_count_of_a_node_is_that_of_its_attempts_after_each_call() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    fill(&store).await;
    let mut running = Vec::new();
    for (ends, wanted, expected) in [(0, 2, "2"), (0, 9, "3"), (1, 0, "2"), (2, 9, "3"), (3, 0, "0"), (0, 1, "1")] {
        let ends: Vec<FetchedJob> = running.drain(..ends).collect();
        running.extend(call(&worker, &ends, wanted).await.fetched);
        assert_eq!(counted(&redis).await, expected);
        call(&worker, &ends, 0).await; // repeated
        assert_eq!((counted(&redis).await.as_str(), running.len().to_string().as_str()), (expected, expected));
    }
    call(&worker, &running, 0).await;
    assert_eq!(redis.command(&format!("EXISTS {HELD}")).await, ":0\r\n", "nothing is left of what has ended");
}

#[tokio::test]
async fn counts_that_were_lost_or_set_by_others_are_right_again_within_a_second() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    fill(&store).await;
    let running = call(&worker, &[], 9).await.fetched;
    for wrong in [
        format!("DEL {HELD}"),
        format!("HSET {HELD} {} 9", nodes()[0]),
        format!("HSET {HELD} {} rubbish", nodes()[0]),
        format!("HSET {HELD} zzzzzzzzzz 5"),
    ] {
        redis.command(&wrong).await;
        let counting = async {
            loop {
                call(&worker, &[], 0).await;
                let all = redis.command(&format!("HGETALL {HELD}")).await;
                if all.starts_with("*2") && counted(&redis).await == "3" {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), counting).await.expect(&wrong);
    }
    let mut running = [call(&worker, &running[..1], 9).await.fetched, running].concat();
    assert_eq!(running.len(), 4);
    call(&worker, &running.split_off(0), 0).await;
    // Of one that runs nothing, too, and beside what is no attempt.
    redis.command(&format!("HSET {HELD} {} 9", nodes()[0])).await;
    redis.command(&format!("HSET phalanx:laws:running:{} garbage x", nodes()[0])).await;
    assert_eq!(until_fetched(&worker, 3).await.len(), 3);
}

/// It cannot say how many run. All else goes on, the ends of those that run too.
#[tokio::test]
async fn a_queue_whose_count_is_spoilt_waits_until_the_key_is_removed() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::serving(&store, nodes()[0], &["q", "other"]);
    fill(&store).await;
    enqueue(&store, &[NewJob { queue: "other".into(), ..job("other") }]).await;
    let running = call(&worker, &[], 2).await.fetched;
    redis.command(&format!("DEL {HELD}")).await;
    redis.command(&format!("SET {HELD} x")).await;
    let reply = call(&worker, &running, 9).await;
    let queues: Vec<&str> = reply.fetched.iter().map(|job| &*job.attempt.queue).collect();
    assert_eq!((queues, reply.spoilt, reply.has_more), (vec!["other"], vec![HELD.to_owned()], false));
    assert_eq!(store.stats().await.unwrap().processed, 2);
    redis.command(&format!("DEL {HELD}")).await;
    assert_eq!(until_fetched(&worker, 3).await.len(), 3);
}

/// One that no node has set: only that node can say how many it runs.
#[tokio::test]
async fn a_queue_waits_until_a_node_has_counted_anew_whose_count_is_unreadable() {
    let (store, redis) = super::store().await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    fill(&store).await;
    assert_eq!(call(&other, &[], 1).await.fetched.len(), 1);
    redis.command(&format!("HSET {HELD} {} rubbish", nodes()[1])).await;
    let reply = call(&one, &[], 9).await;
    assert_eq!((reply.fetched, reply.spoilt), (vec![], vec![HELD.to_owned()]));
    let counting = async {
        while call(&one, &[], 9).await.fetched.is_empty() {
            call(&other, &[], 0).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), counting).await.expect("it counts anew");
}

/// It drains: what counts is written also there.
#[tokio::test]
async fn limits_hold_on_a_full_redis() {
    let (store, redis) = super::store().await;
    let rate = Some(phalanx_core::backend::JobRate { jobs: 60, window: Duration::from_secs(3_600) });
    let limits = QueueLimits { running: Some(2), rate };
    let limited: &'static [LimitedQueue] = Box::leak(Box::new([LimitedQueue::new("q", limits)]));
    let worker = LawWorker::new(&store, 0);
    fill(&store).await;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    let running = worker.call(&[], 9, |call| call.limited = limited).await.fetched;
    assert_eq!((running.len(), counted(&redis).await.as_str()), (2, "2"));
    redis.command(&format!("DEL {HELD} phalanx:laws:running:{}", nodes()[0])).await;
    store.list_again(nodes()[0], &running, limited, &[]).await.unwrap();
    assert_eq!(counted(&redis).await, "2");
    let ends: Vec<Settlement> = running.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
    let reply = worker.call(&ends, 9, |call| call.limited = limited).await;
    assert_eq!(
        (reply.fetched.len(), counted(&redis).await.as_str()),
        (1, "1"),
        "of a rate of three at once: {reply:?}"
    );
    redis.command("CONFIG SET maxmemory 0").await;
}

/// Nor can it say when the next one may begin.
#[tokio::test]
async fn a_queue_whose_rate_is_spoilt_waits_until_the_key_is_removed() {
    const RATE: &str = "phalanx:laws:rate:q";
    let (store, redis) = super::store().await;
    let rate = Some(phalanx_core::backend::JobRate { jobs: 60, window: Duration::from_secs(3_600) });
    let limits = QueueLimits { running: None, rate };
    let limited: &'static [LimitedQueue] = Box::leak(Box::new([LimitedQueue::new("q", limits)]));
    let worker = LawWorker::serving(&store, nodes()[0], &["q", "other"]);
    fill(&store).await;
    enqueue(&store, &[NewJob { queue: "other".into(), ..job("other") }]).await;
    redis.command(&format!("RPUSH {RATE} x")).await;
    let reply = worker.call(&[], 9, |call| call.limited = limited).await;
    let queues: Vec<&str> = reply.fetched.iter().map(|job| &*job.attempt.queue).collect();
    assert_eq!((queues, reply.spoilt, reply.has_more), (vec!["other"], vec![RATE.to_owned()], false));
    redis.command(&format!("DEL {RATE}")).await;
    assert_eq!(worker.call(&[], 9, |call| call.limited = limited).await.fetched.len(), 3);
}

/// A spoilt count keeps no attempt from the list, and those of queues without a limit have none.
#[tokio::test]
async fn attempts_are_listed_again_beside_a_spoilt_count() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::serving(&store, nodes()[0], &["q", "other"]);
    enqueue(&store, &[job("a"), NewJob { queue: "other".into(), ..job("other") }]).await;
    let running = call(&worker, &[], 9).await.fetched;
    redis.command(&format!("DEL {HELD} phalanx:laws:running:{}", nodes()[0])).await;
    redis.command(&format!("SET {HELD} x")).await;
    let limits = QueueLimits { running: Some(3), ..QueueLimits::NONE };
    store.list_again(nodes()[0], &running, &[LimitedQueue::new("q", limits)], &[]).await.unwrap();
    assert_eq!(store.attempts(nodes()[0]).await.unwrap().len(), 2);
    assert_eq!(redis.command("EXISTS phalanx:laws:held:other").await, ":0\r\n");
}

/// Only what others may have changed is not set right then.
#[tokio::test]
async fn a_limit_holds_without_the_right_to_count_anew() {
    let (store, redis) = super::store().await;
    assert!(COMMANDS.contains("+hkeys"));
    redis.command("ACL SETUSER phalanx -hkeys").await;
    let worker = LawWorker::new(&store, 0);
    fill(&store).await;
    let running = call(&worker, &[], 9).await.fetched;
    assert_eq!((running.len(), counted(&redis).await.as_str()), (3, "3"));
    // The first call of each store counts anew.
    let again = LawWorker::new(&super::over(&redis.url()), 0);
    again.skip_tokens(1_000);
    assert_eq!((call(&again, &[], 1).await.fetched.len(), counted(&redis).await.as_str()), (0, "3"));
    assert_eq!(call(&worker, &running, 1).await.fetched.len(), 1);
    assert_eq!(counted(&redis).await, "1");
}

/// More attempts than are counted anew each second, after Redis came back empty.
#[tokio::test]
async fn a_limit_counts_many_attempts_that_are_listed_again() {
    let (store, redis) = super::store().await;
    let limits = QueueLimits { running: Some(1_200), ..QueueLimits::NONE };
    let limited: &'static [LimitedQueue] = Box::leak(Box::new([LimitedQueue::new("q", limits)]));
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue_many(&store, 1_300).await;
    let mut running = Vec::new();
    while running.len() < 1_200 {
        running.extend(one.call(&[], 100, |call| call.limited = limited).await.fetched);
    }
    redis.command(&format!("DEL {HELD} phalanx:laws:running:{}", nodes()[0])).await;
    store.list_again(nodes()[0], &running, limited, &[]).await.unwrap();
    assert_eq!((counted(&redis).await.as_str(), running.len()), ("1200", 1_200));
    assert_eq!(other.call(&[], 100, |call| call.limited = limited).await.fetched, []);
    // Lost alone, the count is right again as well, if later than within a second.
    redis.command(&format!("DEL {HELD}")).await;
    let counting = async {
        while counted(&redis).await != "1200" {
            one.call(&[], 0, |call| call.limited = limited).await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), counting).await.expect("they are counted anew");
}

/// That a node which was found dead by mistake ran before, under its earlier name.
#[tokio::test]
async fn attempts_that_move_to_another_name_count_once() {
    let (store, redis) = super::store().await;
    let [now, before] = nodes();
    let (one, other) = (LawWorker::new(&store, 1), LawWorker::new(&store, 0));
    fill(&store).await;
    let running = call(&one, &[], 2).await.fetched;
    redis.command(&format!("SADD phalanx:laws:names:{now} {before} {now}")).await;
    let limits = QueueLimits { running: Some(3), ..QueueLimits::NONE };
    store.list_again(now, &running, &[LimitedQueue::new("q", limits)], &[]).await.unwrap();
    assert_eq!(redis.command(&format!("HGETALL {HELD}")).await.lines().nth(2), Some(now.as_str()));
    assert_eq!((counted(&redis).await.as_str(), call(&other, &[], 9).await.fetched.len()), ("2", 1));
}

/// Also of a queue that no task names any more. Those of its jobs stay with them.
#[tokio::test]
async fn every_key_of_a_queue_has_an_end() {
    let (store, redis) = super::store().await;
    let rate = Some(phalanx_core::backend::JobRate { jobs: 40, window: Duration::from_secs(10) });
    let limits = QueueLimits { running: Some(3), rate };
    let limited: &'static [LimitedQueue] = Box::leak(Box::new([LimitedQueue::new("q", limits)]));
    let worker = LawWorker::new(&store, 0);
    fill(&store).await;
    let running = worker.call(&[], 9, |call| call.limited = limited).await.fetched;
    let ttl = async |key: &str| {
        let reply = redis.command(&format!("PTTL {key}")).await;
        reply.trim_start_matches(':').trim().parse::<i64>().unwrap()
    };
    for key in ["held", "rate", "serving"] {
        assert!(ttl(&format!("phalanx:laws:{key}:q")).await > 0, "{key}");
    }
    redis.command(&format!("PERSIST {HELD}")).await;
    let counting = async {
        while ttl(HELD).await < 0 {
            worker.call(&[], 0, |call| call.limited = limited).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), counting).await.expect("each recount prolongs it");
    redis.command(&format!("DEL {HELD} phalanx:laws:running:{}", nodes()[0])).await;
    store.list_again(nodes()[0], &running, limited, &[]).await.unwrap();
    assert!(ttl(HELD).await > 0);
}

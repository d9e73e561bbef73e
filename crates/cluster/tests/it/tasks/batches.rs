//! Batches in keys that are spoilt, full, or that others wrote.

use phalanx_core::backend::{
    AttemptEnd, BackendError, BatchRefusal, BatchStage, Consequences, EnqueueOutcome, NewBatch, NewJob, SealOutcome,
    SettleOutcome, StoredBatch, TaskStore,
};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, failure, job, nodes, settlement};

use crate::counters::Counters;

/// The hash of the batch, the bitmap of its members that ended, and the queue of its completion.
const KEYS: [&str; 3] = ["phalanx:laws:batch:b", "phalanx:laws:batches:ended:b", "resque:queue:ends"];

fn member(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","batch":"b"}}"#);
    NewJob { text: text.into(), batch: Some("b".into()), ..job(id) }
}

/// A batch of these members, sealed, whose completion is in the queue `ends`.
async fn sealed(store: &std::sync::Arc<dyn TaskStore>, ids: &[&str], deadline_ms: u64) {
    let completion = Some(NewJob { queue: "ends".into(), ..job("end") });
    let batch = NewBatch { id: "b".into(), deadline_ms, completion };
    assert_eq!(store.create_batch(&batch, u64::MAX / 4).await.unwrap(), None);
    let members: Vec<NewJob> = ids.iter().map(|id| member(id)).collect();
    assert_eq!(enqueue(store, &members).await, vec![EnqueueOutcome::Stored; ids.len()]);
    assert!(matches!(store.seal_batch("b").await.unwrap(), SealOutcome::Sealed(_)));
}

async fn stored(store: &std::sync::Arc<dyn TaskStore>) -> StoredBatch {
    store.batch("b").await.unwrap().unwrap()
}

/// Puts a value of another type in the place of a key, and keeps it.
async fn spoil(redis: &Redis, key: &str) {
    redis.command(&format!("RENAME {key} kept")).await;
    redis.command(&format!("SADD {key} x")).await;
}

async fn heal(redis: &Redis, key: &str) {
    redis.command(&format!("DEL {key}")).await;
    redis.command(&format!("RENAME kept {key}")).await;
}

/// That member alone; it counts once the key is as it was.
#[tokio::test]
async fn a_member_whose_end_cannot_count_stays() {
    for key in KEYS {
        let (store, redis) = super::store().await;
        redis.command("ACL SETUSER default ~*").await;
        let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
        sealed(&store, &["done", "failed", "poison"], 4_000_000_000_000).await;
        enqueue(&store, &[job("other")]).await;
        let mut running = worker.fetch(2).await;
        for deaths in 0..3 {
            let poison = dying.fetch(1).await;
            assert_eq!(poison[0].attempt.counters.deaths, deaths);
            if deaths < 2 {
                store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
            }
        }
        running.extend(worker.fetch(1).await);
        spoil(&redis, key).await;
        let mut ends = vec![settlement(&running[0], AttemptEnd::Done), settlement(&running[1], failure(&running[1]))];
        ends.push(settlement(&running[2], AttemptEnd::Dropped));
        let settled = worker.call(&ends, 0, |_| {}).await.settled;
        let spoilt = SettleOutcome::Spoilt { key: key.to_owned() };
        assert_eq!(settled, [spoilt.clone(), spoilt, SettleOutcome::Accepted], "{key}");
        let given_back = store.give_back(nodes()[0], nodes()[1], "w").await;
        assert!(matches!(&given_back, Err(BackendError::WrongKind { key: named }) if named == key), "{given_back:?}");
        assert_eq!(store.failed(0, 9).await.unwrap().len(), 0, "{key}");
        heal(&redis, key).await;
        let settled = worker.call(&ends[..2], 0, |_| {}).await.settled;
        assert_eq!(settled, vec![SettleOutcome::Accepted; 2], "{key}");
        store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
        let batch = stored(&store).await;
        assert_eq!((batch.stage, batch.done, batch.failed, batch.deleted), (BatchStage::Finished, 1, 2, 0), "{key}");
        assert_eq!(store.waiting("ends", 0, 9).await.unwrap().len(), 1, "{key}");
    }
}

/// A member that is delayed, one that is parked, and a deadline.
#[tokio::test]
async fn what_ends_in_no_attempt_waits_for_a_spoilt_batch() {
    for key in KEYS {
        let (store, redis) = super::store().await;
        let worker = LawWorker::new(&store, 0);
        sealed(&store, &["parked", "late"], 4_000_000_000_000).await;
        let running = worker.fetch(2).await;
        worker.settle(&running[0], AttemptEnd::Park { class: "c".into() }).await;
        worker.settle(&running[1], AttemptEnd::Snooze { due_ms: 4_000_000_000_000 }).await;
        spoil(&redis, key).await;
        assert_eq!(store.fail_parked(u64::MAX / 2, "w", &[]).await.unwrap(), 0, "{key}");
        let deleted = store.delete("late").await;
        assert!(matches!(&deleted, Err(BackendError::WrongKind { key: named }) if named == key), "{deleted:?}");
        redis.command("ZADD phalanx:laws:batches:due XX 1 b").await;
        assert_eq!(store.promote().await.unwrap().moved, 0, "{key}");
        heal(&redis, key).await;
        assert_eq!(store.fail_parked(u64::MAX / 2, "w", &[]).await.unwrap(), 1, "{key}");
        store.delete("late").await.unwrap();
        let batch = stored(&store).await;
        assert_eq!((batch.stage, batch.failed, batch.deleted), (BatchStage::Finished, 1, 1), "{key}");
        assert_eq!(redis.command("ZCARD phalanx:laws:batches:due").await, ":0\r\n", "{key}");
    }
}

#[tokio::test]
async fn a_full_redis_refuses_batches_and_ends_those_that_are_there() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let batch = |id: &str| NewBatch { id: id.into(), deadline_ms: 4_000_000_000_000, completion: Some(job("end")) };
    store.create_batch(&batch("b"), u64::MAX / 4).await.unwrap();
    enqueue(&store, &[NewJob { digest: Some([1; 16]), ..member("a") }]).await;
    let running = worker.fetch_one().await;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    assert!(matches!(store.create_batch(&batch("c"), u64::MAX / 4).await, Err(BackendError::Full)));
    assert!(matches!(store.enqueue(&[member("x")], u64::MAX / 4).await, Err(BackendError::Full)));
    let again = store.enqueue(&[NewJob { digest: Some([1; 16]), ..member("a") }], u64::MAX / 4).await;
    assert_eq!(again.unwrap(), [EnqueueOutcome::Existing("a".into())], "a repetition adds nothing");
    assert!(matches!(store.seal_batch("b").await.unwrap(), SealOutcome::Sealed(_)));
    let reply = worker.call(&[settlement(&running, AttemptEnd::Done)], 1, |_| {}).await;
    assert_eq!((reply.settled, reply.fetched.len()), (vec![SettleOutcome::Accepted], 1));
    assert_eq!(stored(&store).await.total, 1);
    redis.command("CONFIG SET maxmemory 0").await;
}

/// One of a number that no member has would make the bitmap half a gigabyte.
#[tokio::test]
async fn a_member_that_no_enqueue_made_changes_nothing() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    sealed(&store, &["a"], 4_000_000_000_000).await;
    let running = super::running(&store, &worker, &["v", "w", "x", "y", "z"]).await;
    let made_up = ["b#4294967295", "b#1", "b", "nothing#0", "b#99999999999999999999999999"];
    for (job, name) in running.iter().filter(|job| !job.text.ends_with(b"#0\"}")).zip(made_up) {
        let consequences = Some(Box::new(Consequences { member: Some(name.into()), ..Consequences::default() }));
        let end = phalanx_core::backend::Settlement { consequences, ..settlement(job, AttemptEnd::Done) };
        assert_eq!(worker.call(&[end], 0, |_| {}).await.settled, [SettleOutcome::Accepted], "{name}");
    }
    let batch = stored(&store).await;
    assert_eq!((batch.stage, batch.total, batch.done), (BatchStage::Sealed, 1, 0));
    assert_eq!(redis.command("EXISTS phalanx:laws:batches:ended:b phalanx:laws:batch:nothing").await, ":0\r\n");
}

/// A week after its end; its bitmap with it, and nothing of it stays for ever before.
#[tokio::test]
async fn every_key_of_a_batch_has_an_end() {
    const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    sealed(&store, &["a", "b"], now_ms + WEEK_MS).await;
    let ttl = async |key: &str| {
        let reply = redis.command(&format!("PTTL {key}")).await;
        reply.trim_start_matches(':').trim().parse::<i64>().unwrap()
    };
    let week = WEEK_MS as i64;
    let running = worker.fetch(2).await;
    worker.settle(&running[0], AttemptEnd::Done).await;
    for key in &KEYS[..2] {
        let left = ttl(key).await;
        assert!((2 * week - 60_000..=2 * week).contains(&left), "{key}: {left}");
    }
    worker.settle(&running[1], AttemptEnd::Done).await;
    let left = ttl(KEYS[0]).await;
    assert!((week - 60_000..=week).contains(&left), "{left}");
    assert_eq!(ttl(KEYS[1]).await, -2, "it is gone");
    assert_eq!(redis.command(&format!("HEXISTS {} text", KEYS[0])).await, ":0\r\n", "it is in its queue");
}

#[tokio::test]
async fn a_batch_whose_numbers_are_none_is_spoilt() {
    for field in ["total", "done", "failed", "deleted"] {
        let (store, redis) = super::store().await;
        let worker = LawWorker::new(&store, 0);
        sealed(&store, &["a"], 4_000_000_000_000).await;
        let running = worker.fetch_one().await;
        let number = if field == "total" { 1 } else { 0 };
        redis.command(&format!("HSET {} {field} rubbish", KEYS[0])).await;
        let end = worker.settle(&running, AttemptEnd::Done).await;
        assert_eq!(end, SettleOutcome::Spoilt { key: KEYS[0].to_owned() }, "{field}");
        redis.command(&format!("HSET {} {field} {number}", KEYS[0])).await;
        assert_eq!(worker.settle(&running, AttemptEnd::Done).await, SettleOutcome::Accepted);
        assert_eq!(stored(&store).await.stage, BatchStage::Finished);
    }
}

/// By a settlement, a seal, a deletion, a conviction, a parking that took too long, and a deadline.
#[test]
fn each_end_of_a_batch_is_counted_once() {
    Counters::run(async |counters| {
        let (store, redis) = super::store().await;
        let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
        let ends = || counters.of("phalanx_tasks_batches_total");
        let again = async |ids: &[&str]| {
            redis.command(&format!("DEL {} {}", KEYS[0], KEYS[1])).await;
            sealed(&store, ids, 4_000_000_000_000).await;
            assert_eq!(store.stats().await.unwrap().batches, u64::from(!ids.is_empty()));
        };
        again(&[]).await;
        assert_eq!(ends(), 1, "sealed");
        again(&["a", "b"]).await;
        for (job, end) in worker.fetch(2).await.iter().zip([AttemptEnd::Done, AttemptEnd::Dropped]) {
            for _ in 0..2 {
                worker.settle(job, end.clone()).await;
            }
        }
        assert_eq!(ends(), 2, "settled");
        again(&["late"]).await;
        worker.settle(&worker.fetch_one().await, AttemptEnd::Snooze { due_ms: 4_000_000_000_000 }).await;
        store.delete("late").await.unwrap();
        assert_eq!(ends(), 3, "deleted");
        again(&["parked"]).await;
        worker.settle(&worker.fetch_one().await, AttemptEnd::Park { class: "c".into() }).await;
        store.fail_parked(u64::MAX / 2, "w", &[]).await.unwrap();
        assert_eq!(ends(), 4, "parked");
        again(&["poison"]).await;
        for _ in 0..3 {
            dying.fetch_one().await;
            store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
        }
        assert_eq!(ends(), 5, "convicted");
        again(&["slow"]).await;
        redis.command("ZADD phalanx:laws:batches:due XX 1 b").await;
        store.promote().await.unwrap();
        worker.settle(&worker.fetch_one().await, AttemptEnd::Done).await;
        assert_eq!((ends(), store.stats().await.unwrap().batches), (6, 0), "expired");
    });
}

/// It is named instead. Nor does the deadline of a batch that is gone.
#[test]
fn a_spoilt_list_of_deadlines_keeps_no_delayed_job_waiting() {
    const DUE: &str = "phalanx:laws:batches:due";
    Counters::run(async |counters| {
        let (store, redis) = super::store().await;
        let named = || counters.of("phalanx_tasks_spoilt_keys_total");
        enqueue(&store, &[NewJob { due_ms: Some(4_000_000_000_000), ..job("late") }]).await;
        redis.command("ZADD phalanx:laws:delayed XX 1 late").await;
        redis.command(&format!("SET {DUE} x")).await;
        assert_eq!((store.promote().await.unwrap().moved, named()), (1, 1));
        redis.command(&format!("DEL {DUE}")).await;
        redis.command(&format!("ZADD {DUE} 1 gone")).await;
        assert_eq!((store.promote().await.unwrap().moved, named()), (0, 1));
        assert_eq!(redis.command(&format!("EXISTS {DUE}")).await, ":0\r\n");
    });
}

/// Nothing of it is stored.
#[tokio::test]
async fn a_batch_that_is_full_or_spoilt_takes_no_members() {
    let (store, redis) = super::store().await;
    let batch = NewBatch { id: "b".into(), deadline_ms: 4_000_000_000_000, completion: None };
    store.create_batch(&batch, u64::MAX / 4).await.unwrap();
    redis.command(&format!("HSET {} total 999999", KEYS[0])).await;
    let refused = vec![EnqueueOutcome::NoMember(BatchRefusal::TooLarge); 2];
    assert_eq!(enqueue(&store, &[member("x"), member("y")]).await, refused);
    assert_eq!(enqueue(&store, &[member("last")]).await, [EnqueueOutcome::Stored]);
    spoil(&redis, KEYS[0]).await;
    let spoilt = store.enqueue(&[member("z")], u64::MAX / 4).await;
    assert!(matches!(&spoilt, Err(BackendError::WrongKind { key }) if key == KEYS[0]), "{spoilt:?}");
    assert_eq!(store.waiting("q", 0, 9).await.unwrap().len(), 1);
}

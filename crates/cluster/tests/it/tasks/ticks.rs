//! Ticks of periodic tasks where Redis is full, spoilt, older, or where other programs touch its lists.

use phalanx_core::backend::{AttemptEnd, BackendError, JobState, TickCall, TickOutcome};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::tasks::{LawTicks, LawWorker, nodes};

/// The field of the task `t`.
async fn field(redis: &Redis) -> String {
    redis.command("HGET phalanx:laws:ticks t").await.lines().nth(1).unwrap_or_default().to_owned()
}

async fn now_us(redis: &Redis) -> u64 {
    let reply = redis.command("TIME").await;
    let numbers: Vec<u64> = reply.lines().filter_map(|line| line.parse().ok()).collect();
    numbers[0] * 1_000_000 + numbers[1]
}

#[tokio::test]
async fn a_full_redis_refuses_a_tick_whole_and_it_is_enqueued_later() {
    let (store, redis) = super::store().await;
    let ticks = LawTicks::skipping(&store);
    assert_eq!(ticks.ask(Some(-3), &[]).await, ticks.ticked(-3, &[], 0));
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    let requests = [ticks.request("t", Some(-3), &[-2]), ticks.request("other", Some(-3), &[-2])];
    let call =
        TickCall { now_us: now_us(&redis).await, until_us: u64::MAX / 4, since_us: ticks.since_us, tasks: &requests };
    assert!(matches!(store.tick(&call).await, Err(BackendError::Full)));
    redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(redis.command("KEYS *").await.matches("unique").count(), 0);
    assert_eq!(ticks.ask(None, &[]).await, ticks.ticked(-3, &[], 0), "nothing has changed");
    let again = ticks.call(&requests).await;
    assert_eq!(again, vec![ticks.ticked(-2, &[-2], 0); 2]);
}

/// A claim that is never released would stop the task for a week.
#[tokio::test]
async fn a_tick_whose_job_another_program_took_keeps_no_later_one_from_being_enqueued() {
    let (store, redis) = super::store().await;
    let ticks = LawTicks::skipping(&store);
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    assert_eq!(ticks.ask(Some(-9), &[-8]).await, ticks.ticked(-8, &[-8], 0));
    redis.command("DEL resque:queue:q").await;
    // Both nodes run something else.
    super::running(&store, &other, &["a"]).await;
    super::running(&store, &worker, &["b"]).await;
    assert_eq!(ticks.ask(Some(-8), &[-7]).await, ticks.ticked(-7, &[-7], 0), "its job is nowhere");
    let fetched = worker.fetch_one().await;
    assert_eq!(ticks.ask(Some(-7), &[-6]).await, ticks.ticked(-6, &[], 1), "its job runs");
    worker.settle(&fetched, AttemptEnd::Park { class: "t".into() }).await;
    assert_eq!(ticks.ask(Some(-6), &[-5]).await, ticks.ticked(-5, &[], 1), "its job is parked");
    redis.command("DEL phalanx:laws:parked:t").await;
    assert_eq!(ticks.ask(Some(-5), &[-4]).await, ticks.ticked(-4, &[-4], 0));
}

/// The script does not search a queue that has others; a node does, after a while.
#[tokio::test]
async fn the_job_of_a_tick_that_another_program_took_is_known_to_be_nowhere() {
    let (store, redis) = super::store().await;
    let ticks = LawTicks::skipping(&store);
    assert_eq!(ticks.ask(Some(-9), &[-8]).await, ticks.ticked(-8, &[-8], 0));
    let request = ticks.request("t", Some(-9), &[-8]);
    let job = request.due[0].job.as_ref().unwrap();
    let claim = &job.unique.as_ref().unwrap().key;
    redis.command("RPUSH resque:queue:q '{}'").await;
    assert_eq!(store.claimant(claim).await.unwrap(), Some(job.id.clone()));
    assert_eq!(store.status(&job.id).await.unwrap().state, JobState::Waiting);
    redis.command("LPOP resque:queue:q").await;
    assert_eq!(ticks.ask(Some(-8), &[-7]).await, ticks.ticked(-7, &[], 1));
    assert_eq!(store.status(&job.id).await.unwrap().state, JobState::Unknown);
    assert!(store.release(claim, &job.id).await.unwrap());
    assert_eq!(store.claimant(claim).await.unwrap(), None);
    assert_eq!(ticks.ask(Some(-7), &[-6]).await, ticks.ticked(-6, &[-6], 0));
}

/// The claim is the dead node's job's, wherever that is meanwhile.
#[tokio::test]
async fn the_job_of_a_node_that_died_keeps_its_claim_and_goes_on_by_another() {
    let (store, _redis) = super::store().await;
    let ticks = LawTicks::skipping(&store);
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    ticks.ask(Some(-9), &[-8]).await;
    dying.fetch_one().await;
    assert_eq!(ticks.ask(Some(-8), &[-7]).await, ticks.ticked(-7, &[], 1));
    store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
    assert_eq!(ticks.ask(Some(-7), &[-6]).await, ticks.ticked(-6, &[], 1));
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Done).await;
    assert_eq!(ticks.ask(Some(-6), &[-5]).await, ticks.ticked(-5, &[-5], 0));
}

#[tokio::test]
async fn a_spoilt_key_stops_the_tasks_that_need_it_and_is_named() {
    let (store, redis) = super::store().await;
    let ticks = LawTicks::skipping(&store);
    redis.command("SADD phalanx:laws:unique:@bad x").await;
    let requests = [ticks.request("bad", Some(-3), &[-2]), ticks.request("t", Some(-3), &[-2])];
    let spoilt = TickOutcome::Spoilt { key: "phalanx:laws:unique:@bad".to_owned() };
    assert_eq!(ticks.call(&requests).await, [spoilt, ticks.ticked(-2, &[-2], 0)]);
    redis.command("DEL phalanx:laws:unique:@bad").await;
    assert_eq!(ticks.call(&requests).await, [ticks.ticked(-2, &[-2], 0), ticks.ticked(-2, &[], 0)], "it is not lost");
    redis.command("DEL resque:queue:q").await;
    redis.command("SET resque:queue:q x").await;
    let spoilt = TickOutcome::Spoilt { key: "resque:queue:q".to_owned() };
    assert_eq!(ticks.ask(Some(-2), &[-1]).await, spoilt);
    for key in ["resque:queue:q", "resque:queues", "phalanx:laws:runners", "phalanx:laws:unique:@t"] {
        redis.command(&format!("DEL {key}")).await;
    }
    redis.command("SET resque:queues x").await;
    redis.command("SET phalanx:laws:runners x").await;
    assert_eq!(ticks.ask(Some(-2), &[-1]).await, ticks.ticked(-1, &[-1], 0), "these are not needed");
    redis.command("SET phalanx:laws:ticks x").await;
    let spoilt = TickOutcome::Spoilt { key: "phalanx:laws:ticks".to_owned() };
    assert_eq!(ticks.ask(Some(-1), &[0]).await, spoilt);
    redis.command("DEL phalanx:laws:ticks").await;
    redis.command("HSET phalanx:laws:ticks t rubbish").await;
    redis.command("DEL phalanx:laws:unique:@t").await;
    assert_eq!(ticks.ask(Some(-1), &[0]).await, ticks.ticked(0, &[0], 0), "what cannot be read counts as none");
}

/// The nodes with the newer schedule are gone, without others that began later.
#[tokio::test]
async fn a_schedule_that_no_node_has_any_more_is_forgotten() {
    let (store, redis) = super::store().await;
    let old = LawTicks::of_schedule(&store, "old");
    let now = now_us(&redis).await;
    let last = old.minute(-3);
    for (seen, counts) in [(now - 20_000_000, true), (now - 31_000_000, false), (now + 3_600_000_000, false)] {
        redis.command(&format!("HSET phalanx:laws:ticks t '{last} {now} {seen} new one'")).await;
        match old.ask(None, &[-2]).await {
            TickOutcome::Superseded { schedule } => assert!(counts && schedule == "new one", "{seen}"),
            TickOutcome::Ticked { last_ms, .. } => assert!(!counts && last_ms > last, "{seen}: not for the past"),
            other @ TickOutcome::Spoilt { .. } => panic!("{other:?}"),
        }
    }
    assert!(field(&redis).await.ends_with(" old"), "{}", field(&redis).await);
}

/// Most calls find that another node was faster, or look only.
#[tokio::test]
async fn a_call_without_news_writes_nothing() {
    let (store, redis) = super::store().await;
    let ticks = LawTicks::new(&store);
    ticks.ask(Some(-3), &[-2]).await;
    let written = async || {
        let stats = redis.command("INFO commandstats").await;
        let calls = |command: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
            line.and_then(|line| line.split(',').next()).map(str::to_owned)
        };
        [calls("hset"), calls("rpush"), calls("expire")]
    };
    let before = written().await;
    for _ in 0..3 {
        assert_eq!(ticks.ask(Some(-2), &[-2]).await, ticks.ticked(-2, &[], 0));
        assert_eq!(ticks.ask(Some(-3), &[]).await, ticks.ticked(-2, &[], 0));
    }
    assert_eq!(written().await, before);
    let text = field(&redis).await;
    let parts: Vec<&str> = text.splitn(4, ' ').collect();
    assert_eq!((parts[0], parts[1], parts[3]), (&*ticks.minute(-2).to_string(), "1000", "every minute"), "{text}");
    let ttl: i64 = redis.command("TTL phalanx:laws:ticks").await.trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((7_775_000..=7_776_000).contains(&ttl), "{ttl}");
}

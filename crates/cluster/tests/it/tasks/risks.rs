//! The settings of a Redis by which jobs may be lost, as its user may read them.

use phalanx_testkit::Redis;

/// Sets these, and returns the risks that a node finds then.
async fn risks(redis: &Redis, settings: &[&str]) -> Vec<String> {
    for setting in settings {
        assert_eq!(redis.command(&format!("CONFIG SET {setting}")).await, "+OK\r\n", "{setting}");
    }
    super::over(&redis.url()).risks().await
}

fn name(risks: &[String], named: &[&str]) {
    assert_eq!(risks.len(), named.len(), "{risks:?}");
    for (risk, named) in risks.iter().zip(named) {
        assert!(risk.contains(named), "{named}: {risk}");
    }
}

#[tokio::test]
async fn a_redis_that_evicts_or_saves_nothing_is_a_risk_for_jobs() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx +info +config|get").await;
    name(&risks(&redis, &["maxmemory-policy allkeys-lru"]).await, &[]);
    let evicts = "set its maxmemory-policy to noeviction, it is allkeys-lru";
    name(&risks(&redis, &["maxmemory 1gb"]).await, &[evicts]);
    let in_memory = "Redis keeps them in memory only";
    name(&risks(&redis, &["appendonly no"]).await, &[evicts, in_memory]);
    name(&risks(&redis, &["maxmemory-policy noeviction"]).await, &[in_memory]);
    name(&risks(&redis, &["save \"3600 1\""]).await, &[]);
    name(&risks(&redis, &["appendonly yes", "save \"\""]).await, &[]);
}

#[tokio::test]
async fn a_user_that_may_not_ask_is_told_what_it_can_see_and_misses_no_right() {
    let redis = Redis::start().await;
    let settings = ["maxmemory-policy allkeys-lru", "maxmemory 1gb", "appendonly no"];
    name(&risks(&redis, &settings).await, &[]);
    redis.command("ACL SETUSER phalanx +info").await;
    name(&risks(&redis, &[]).await, &["it is allkeys-lru", "does not tell whether it saves snapshots"]);
}

#[tokio::test]
async fn a_redis_that_does_not_answer_costs_one_timeout() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx +info").await;
    let store = super::over(&redis.url());
    store.stats().await.unwrap();
    redis.freeze();
    let begun = tokio::time::Instant::now();
    name(&store.risks().await, &[]);
    let took = begun.elapsed();
    redis.thaw();
    assert!(took < super::TIMEOUT * 3 / 2, "{took:?}");
}

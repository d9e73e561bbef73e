use std::time::Duration;

use phalanx_testkit::{Proxy, Redis, check_time};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::load::Load;
use super::node_death::{next_presence, observe};
use super::{BACK, RECOVERY, SOON, apply, members, start_node, until};

/// A connection whose packets are dropped is not closed by either side; the kernel times it out only after minutes.
#[tokio::test]
async fn connections_that_went_silent_for_good_are_reopened() {
    const FAULT: &str = "one node's connections silent for 8 s, and for good";
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let near = start_node(&redis.url(), "near").await;
    let far = start_node(&redis.url_through(proxy.addr()), "far").await;
    let mut one = observe(near.addr).await;
    let other = observe(far.addr).await;
    let load = Load::start([near.addr, far.addr]).await;
    proxy.silence();
    let silent = Instant::now();
    let refused = apply(far.addr, &one.id(), "set", json!(["k", 1])).await.error_code();
    // A command ends within `redis.command_timeout`.
    check_time(&format!("{FAULT}: a call ends {refused}"), silent.elapsed(), Duration::from_secs(2));
    assert!(["unavailable", "late"].contains(&&*refused), "{refused}");
    assert_eq!(next_presence(&mut one, "leave").await, other.id());
    sleep_until(silent + Duration::from_secs(8)).await; // longer than a lease: the duration of the silence is the fault
    proxy.restore();
    let restored = Instant::now();
    load.recovered(FAULT, restored, RECOVERY).await;
    until("both are listed", BACK, async || members(far.addr, "defaultRoom").await == 2).await;
    check_time(&format!("{FAULT}: members are listed"), restored.elapsed(), RECOVERY);
    load.finish(FAULT, &["unavailable", "unreachable", "late", "not_found"]).await;
}

/// A node that thaws finds every deadline expired, and the replies that arrived meanwhile still unread.
#[tokio::test]
async fn a_node_that_froze_while_it_waited_for_redis_keeps_its_subscription() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let near = start_node(&redis.url(), "near").await;
    let far = start_node(&redis.url_through(proxy.addr()), "far").await;
    let socket = observe(far.addr).await;
    let leases = async || redis.command("ZRANGE phalanx:tour:leases 0 -1 WITHSCORES").await;
    let mut before = leases().await;
    for _ in 0..2 {
        // Both nodes renew, so one of two changes may be the other node's.
        until("a lease is renewed", SOON, async || leases().await != before).await;
        before = leases().await;
    }
    proxy.pause();
    let paused = Instant::now();
    sleep_until(paused + Duration::from_millis(1200)).await; // one ping per second: one is unanswered now
    far.freeze();
    proxy.restore();
    sleep_until(paused + Duration::from_millis(3400)).await; // longer than the ping's timeout, shorter than the lease
    far.thaw();
    assert_eq!(apply(near.addr, &socket.id(), "set", json!(["k", 1])).await.status, 200);
    assert!(!far.stderr().contains("the subscription to redis broke off"), "{}", far.stderr());
}

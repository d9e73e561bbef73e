//! Locks of nodes that are cut off from Redis.

use std::time::Duration;

use phalanx::Running;
use phalanx::prelude::*;
use phalanx_testkit::{Proxy, Redis};
use tokio::time::{Instant, timeout};

use super::{SOON, config};

async fn node(url: &str, id: &str) -> Running {
    App::new("tour").start_in_cluster(config(id), url).await.unwrap()
}

#[tokio::test]
async fn a_holder_that_is_cut_off_knows_before_another_takes_the_lock_with_a_higher_token() {
    const LEASE: Duration = Duration::from_secs(2);
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (through, straight) = (redis.url_through(proxy.addr()), redis.url());
    let (holder, other) = tokio::join!(node(&through, "holder"), node(&straight, "other"));
    for fault in [Proxy::cut, Proxy::hold] {
        let held = holder.node().locks().lock("door", LEASE, SOON).await.unwrap().expect("it is free");
        fault(&proxy);
        let began = Instant::now();
        let next = other.node().locks().lock("door", LEASE, SOON).await.unwrap().expect("the lease runs out");
        assert!(!held.is_held(), "it knows by its own clock");
        assert!(began.elapsed() > LEASE / 3, "{:?}", began.elapsed());
        assert!(next.token() > held.token());
        timeout(SOON, held.lost()).await.expect("it is told");
        drop((held, next));
        proxy.mend();
        super::until("the holder is back", SOON, async || {
            matches!(holder.node().locks().try_lock("door", LEASE).await, Ok(Some(_)))
        })
        .await;
    }
    tokio::join!(holder.stop(), other.stop());
}

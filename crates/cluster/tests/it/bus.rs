use std::sync::Arc;

use phalanx_cluster::{BusSettings, OwnName, RedisBus, RedisClock};
use phalanx_core::backend::Bus;
use phalanx_testkit::Redis;

async fn bus() -> (Arc<dyn Bus>, Redis) {
    let (redis, client, keys) = super::redis().await;
    let settings = BusSettings {
        node: "n".to_owned(),
        token: "t".to_owned(),
        previous_token: String::new(),
        queue: 4096,
        interop: None,
    };
    (Arc::new(RedisBus::new(client, keys, Arc::new(RedisClock::default()), OwnName::default(), settings)), redis)
}

phalanx_testkit::bus_laws!(redis: super::bus().await);

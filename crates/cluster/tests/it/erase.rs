//! The end of a cluster: its keys are deleted, and no others.

use phalanx_cluster::erase;
use phalanx_core::config::Config;
use phalanx_testkit::Redis;

/// Keys of the cluster `test`, then those of others.
const OWN: [&str; 3] = ["phalanx:test:lives", "test:cache:a", "test:resque:queues"];
const OTHERS: [&str; 4] = ["actionhero:cache:a", "phalanx:tester:lives", "resque:queues", "tester:cache:a"];

fn config(prefix: &str, tasks_prefix: &str) -> Config {
    let mut config = Config::default();
    (config.redis.prefix, config.tasks.prefix) = (prefix.to_owned(), tasks_prefix.to_owned());
    config
}

#[tokio::test]
async fn nothing_is_erased_by_a_prefix_that_others_may_use() {
    let redis = Redis::start().await;
    let url = format!("redis://{}", redis.addr()); // without the user, who may use few prefixes
    for key in OWN.into_iter().chain(OTHERS) {
        redis.command(&format!("SET {key} 1")).await;
    }
    for (prefix, tasks_prefix, setting) in [
        ("actionhero:", "test:resque:", "redis.prefix"),
        ("", "test:resque:", "redis.prefix"),
        ("test", "test:resque:", "redis.prefix"),
        ("test:", "resque:", "tasks.prefix"),
    ] {
        let error = erase(&url, "test", &config(prefix, tasks_prefix)).await.expect_err(setting).to_string();
        assert!(error.contains(setting) && error.contains("\"test:\""), "{error}");
        assert_eq!(redis.command("DBSIZE").await, ":7\r\n", "{prefix:?} {tasks_prefix:?}");
    }
    assert_eq!(erase(&url, "test", &config("test:", "test:resque:")).await.unwrap(), OWN.len());
    for key in OTHERS {
        assert_eq!(redis.command(&format!("EXISTS {key}")).await, ":1\r\n", "{key}");
    }
}

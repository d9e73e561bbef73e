use std::time::Duration;

use phalanx::config::Config;
use phalanx::testing;
use phalanx_testkit::Redis;
use serde_json::json;

use super::{Say, app, failure, say};

/// A change of settings.
type Change = fn(&mut Config);

/// The address without the user of the test kit's Redis, who may use few prefixes.
fn url(redis: &Redis) -> String {
    format!("redis://{}", redis.addr())
}

#[tokio::test]
async fn two_nodes_are_a_cluster_that_leaves_nothing_in_redis() {
    let redis = Redis::start().await;
    redis.command("SET mine 1").await;
    let (one, two) = testing::two(app, url(&redis)).await;
    let ada = one.client();
    ada.post("/api/signIn", json!({ "name": "ada" })).await.ok();
    assert_eq!(ada.at(&two).get("/api/whoAmI").await.ok().json()["result"], "ada");
    let (mut here, mut there) = (ada.socket().await, ada.at(&two).socket().await);
    here.join("lobby").await;
    there.join("lobby").await;
    here.say("lobby", "hi").await;
    for socket in [&mut here, &mut there] {
        socket.expect(json!({ "message": "hi", "from": here_id(&one).await })).await;
    }
    one.node().cache().save("key", &1, None).await.unwrap();
    assert_eq!(two.node().cache().load::<u8>("key").await.unwrap().unwrap().value, 1);
    ada.post("/api/countLater", json!({})).await.ok();
    assert_ne!(redis.command("DBSIZE").await, ":1\r\n", "it is used");
    one.stop().await;
    assert_eq!(here.closed().await, 1001);
    there.say("lobby", "still here").await;
    there.expect(json!({ "message": "still here" })).await;
    drop(two);
    assert_eq!(redis.command("KEYS *").await, "*1\r\n$4\r\nmine\r\n");
}

#[tokio::test]
async fn a_pair_has_its_names_for_itself_and_erases_no_other_keys() {
    let redis = Redis::start().await;
    redis.command("SET mine:key 1").await;
    let changes: [(&str, Change); 5] = [
        ("redis.prefix", |config| config.redis.prefix = "mine:".into()),
        ("redis.prefix", |config| config.redis.prefix = String::new()),
        ("tasks.prefix", |config| config.tasks.prefix = "mine:".into()),
        ("cluster.name", |config| config.cluster.name = "mine".into()),
        ("cluster.name", |config| {
            if config.general.id == "two" {
                config.cluster.name = "mine".into(); // one of them could start
            }
        }),
    ];
    for (setting, change) in changes {
        let failed = failure(async { drop(testing::two(app, url(&redis)).settings(change).await) }).await;
        assert!(failed.contains(setting) && failed.contains("phalanx-test-"), "{setting}: {failed}");
        assert_eq!(redis.command("KEYS *").await, "*1\r\n$8\r\nmine:key\r\n", "{setting}");
    }
}

async fn here_id(one: &testing::TestApp) -> String {
    one.node().connections().all().remove(0).id().to_string()
}

#[tokio::test]
async fn what_the_other_node_has_published_is_there_when_it_is_refuted() {
    let redis = Redis::start().await;
    let (one, two) = testing::two(app, url(&redis)).await;
    let ada = one.client();
    let mut socket = ada.at(&two).socket().await;
    socket.join("lobby").await;
    for round in 0..200 {
        let text = format!("m{round}");
        socket.refute(json!({ "message": text })).await;
        ada.call::<say>(Say { room: "lobby".into(), text: text.clone() }).await.unwrap();
        failure(async { socket.refute(json!({ "message": text })).await }).await;
    }
}

#[tokio::test]
async fn pairs_at_one_redis_do_not_meet() {
    let redis = Redis::start().await;
    let ((one, two), (other, _fourth)) =
        tokio::join!(testing::two(app, url(&redis)).into_future(), testing::two(app, url(&redis)).into_future());
    let (mut here, mut there) = (two.client().socket().await, other.client().socket().await);
    here.join("lobby").await;
    there.join("lobby").await;
    one.client().call::<say>(Say { room: "lobby".into(), text: "hi".into() }).await.unwrap();
    here.expect(json!({ "message": "hi" })).await;
    there.refute(json!({ "message": "hi" })).await;
    assert_eq!(one.node().cluster().nodes().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_clock_of_a_cluster_cannot_be_put_forward() {
    let redis = Redis::start().await;
    let (one, _two) = testing::two(app, url(&redis)).settings(|config| config.general.grace = Duration::ZERO).await;
    let failed = failure(async { one.clock().advance(Duration::from_secs(1)) }).await;
    assert!(failed.contains("testing::start"), "{failed}");
}

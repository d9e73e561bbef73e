use std::time::Duration;

use phalanx::prelude::*;
use phalanx::testing;
use phalanx_testkit::{Direction, Flow, Proxy, Redis};
use serde_json::json;

use super::{app, set, sign_in_as, sign_out, user_of, visit};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_sign_out_closes_all_sockets_of_the_session_and_its_own_after_the_reply() {
    let app = testing::start(app()).await;
    let (ada, other) = (app.client(), app.client());
    sign_in_as(&ada, "ada").await;
    sign_in_as(&other, "ada").await;
    let (mut phone, mut laptop, mut elsewhere) = (ada.socket().await, ada.socket().await, other.socket().await);
    phone.call::<sign_out>(NoInput {}).await.unwrap();
    assert_eq!((phone.closed().await, laptop.closed().await), (4501, 4501));
    assert_eq!(elsewhere.call::<visit>(NoInput {}).await.unwrap(), 1);
    assert_eq!(app.node().sessions().end_all("ada").await.unwrap(), 1);
    assert_eq!(elsewhere.closed().await, 4501);
}

#[tokio::test]
async fn a_new_id_closes_the_sockets_of_the_old_one_for_a_reconnect() {
    let app = testing::start(app()).await;
    let ada = app.client();
    ada.post("/api/set", json!({})).await.ok();
    let mut before = ada.socket().await;
    sign_in_as(&ada, "ada").await;
    assert_eq!(before.closed().await, 4004);
    let mut after = ada.socket().await;
    after.call::<set>(super::User { user: "ada".into(), how: String::new() }).await.unwrap();
    ada.post("/api/renew", json!({})).await.ok();
    assert_eq!(after.closed().await, 4004);
}

#[tokio::test]
async fn a_session_that_expires_closes_its_sockets() {
    let app = testing::start(app()).await;
    let (idle, used) = (app.client(), app.client());
    sign_in_as(&idle, "idle").await;
    sign_in_as(&used, "used").await;
    let (mut silent, mut speaking) = (idle.socket().await, used.socket().await);
    for visits in 1..4 {
        app.clock().advance(6 * DAY);
        assert_eq!(speaking.call::<visit>(NoInput {}).await.unwrap(), visits);
    }
    assert_eq!(silent.closed().await, 4501);
    assert_eq!(user_of(&used).await, "used");
}

#[tokio::test]
async fn a_new_id_and_a_sign_out_close_the_sockets_of_other_nodes() {
    let redis = Redis::start().await;
    let (one, two) = testing::two(app, format!("redis://{}", redis.addr())).await;
    for round in 0..10 {
        let ada = one.client();
        sign_in_as(&ada, "ada").await;
        let (mut here, mut there) = (ada.socket().await, ada.at(&two).socket().await);
        let at = if round % 2 == 0 { &one } else { &two };
        ada.at(at).post("/api/renew", json!({})).await.ok();
        assert_eq!((here.closed().await, there.closed().await), (4004, 4004), "round {round}");
        (here, there) = (ada.socket().await, ada.at(&two).socket().await);
        ada.at(at).post("/api/signOut", json!({})).await.ok();
        assert_eq!((here.closed().await, there.closed().await), (4501, 4501), "round {round}");
    }
}

#[tokio::test]
async fn a_sign_out_that_a_node_missed_closes_its_sockets_once_it_is_back() {
    let mut redis = Redis::start().await;
    let (one, two) = testing::two(app, format!("redis://{}", redis.addr())).await;
    let ada = one.client();
    sign_in_as(&ada, "ada").await;
    let mut socket = ada.at(&two).socket().await;
    redis.kill().await; // with all data: the session is gone, and no order to close came
    redis.start_empty().await;
    assert_eq!(socket.closed().await, 4004);
    let mut back = ada.at(&two).socket().await;
    assert_eq!(back.call::<super::who_am_i>(NoInput {}).await.unwrap(), None);
}

#[tokio::test]
async fn an_end_of_all_whose_outcome_is_unknown_closes_sockets_all_the_same() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (one, two) = testing::two(app, format!("redis://{}", proxy.addr())).await;
    let (ada, bob) = (one.client(), one.client());
    sign_in_as(&ada, "ada").await;
    sign_in_as(&bob, "bob").await;
    let (mut here, mut there) = (ada.socket().await, ada.at(&two).socket().await);
    let mut stays = bob.at(&two).socket().await;
    one.node().sessions().end_all("nobody").await.unwrap(); // from here on Redis has the script
    proxy.hold_flow(Flow::Commands, Direction::ToClient);
    let unknown = one.node().sessions().end_all("ada").await.unwrap_err();
    assert_eq!(unknown.code(), "unavailable");
    proxy.release();
    // Ended by the script; if the look came too late for its answer, by the next one, which the store may have lost.
    for socket in [&mut here, &mut there] {
        let code = socket.closed().await;
        assert!([4501, 4004].contains(&code), "{code}");
    }
    assert_eq!(one.node().sessions().end_all("ada").await.unwrap(), 0);
    assert_eq!(user_of(&ada).await, serde_json::json!(null));
    assert_eq!(stays.call::<visit>(NoInput {}).await.unwrap(), 1);
}

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use phalanx::prelude::*;
use phalanx::testing;
use phalanx::testing::{TestApp, TestClient};
use phalanx_testkit::{Redis, check_time};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{app, rounds, set_cookies, sign_in_as, user_of, who_am_i};

async fn pair(redis: &Redis) -> (TestApp, TestApp) {
    testing::two(app, format!("redis://{}", redis.addr())).settings(|config| config.session.new_burst = 100_000).await
}

#[tokio::test]
async fn a_session_is_the_same_on_every_node() {
    let redis = Redis::start().await;
    let (one, two) = pair(&redis).await;
    let ada = one.client();
    let cookie = cookie_of(&one);
    sign_in_as(&ada, "ada").await;
    let there = ada.at(&two);
    assert_eq!(user_of(&there).await, "ada");
    assert_eq!(there.post("/api/visit", json!({})).await.ok().json()["result"], 1);
    assert_eq!(ada.post("/api/visit", json!({})).await.ok().json()["result"], 2);
    let mut socket = there.socket().await;
    assert_eq!(socket.call::<who_am_i>(NoInput {}).await.unwrap().as_deref(), Some("ada"));
    let id = ada.cookie(&cookie).unwrap();
    ada.post("/api/signOut", json!({})).await.ok();
    let stale = two.client();
    stale.set_cookie(&cookie, &id);
    assert_eq!(user_of(&stale).await, json!(null));
    assert_eq!(socket.closed().await, 4501);
}

/// The cookie of a pair, which has the name of its cluster.
fn cookie_of(app: &TestApp) -> String {
    format!("{}-session", app.node().config().cluster.name)
}

#[tokio::test]
async fn updates_of_two_nodes_at_once_lose_none() {
    let redis = Redis::start().await;
    let (one, two) = pair(&redis).await;
    let ada = one.client();
    sign_in_as(&ada, "ada").await;
    let visits = (0..200).map(|number| {
        let client = if number % 2 == 0 { ada.clone() } else { ada.at(&two) };
        async move { client.post("/api/visit", json!({})).await.ok() }
    });
    join_all(visits).await;
    assert_eq!(ada.post("/api/visit", json!({})).await.ok().json()["result"], 201);
}

#[tokio::test]
async fn a_planted_id_gets_nothing_of_a_sign_in() {
    let redis = Redis::start().await;
    let (one, two) = pair(&redis).await;
    let cookie = cookie_of(&one);
    for round in 0..rounds(20) {
        let attacker = two.client();
        attacker.post("/api/set", json!({})).await.ok();
        let planted = attacker.cookie(&cookie).unwrap();
        let victim = one.client();
        victim.set_cookie(&cookie, &planted);
        sign_in_as(&victim, "ada").await;
        for node in [&one, &two] {
            let attacker = attacker.at(node);
            assert_eq!(user_of(&attacker).await, json!(null), "round {round}");
            attacker.post("/api/visit", json!({})).await.ok();
            attacker.socket().refused().await.refused("session_ended");
            attacker.post("/api/renew", json!({})).await.refused("session_renewed");
        }
        assert_eq!(victim.at(&two).post("/api/visit", json!({})).await.ok().json()["result"], 1, "round {round}");
        attacker.post("/api/signOut", json!({})).await.ok();
        assert_eq!(user_of(&victim).await, json!(null), "round {round}: an end under the old id ends both");
    }
}

#[tokio::test]
async fn a_redis_that_does_not_answer_signs_nobody_out() {
    let redis = Redis::start().await;
    let (one, _two) = pair(&redis).await;
    let (ada, bob) = (one.client(), one.client());
    sign_in_as(&ada, "ada").await;
    sign_in_as(&bob, "bob").await;
    let mut socket = ada.socket().await;
    redis.freeze();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(10) {
        let (read, strict, write, end, upgrade, local) = tokio::join!(
            ada.get("/api/whoAmI").into_future(),
            ada.get("/api/mine").into_future(),
            one.client().post("/api/signIn", json!({ "user": "eve" })).into_future(),
            bob.post("/api/signOut", json!({})).into_future(),
            ada.socket().refused(),
            ada.get("/api/plain").into_future(),
        );
        for answer in [read, strict, write, end, upgrade] {
            assert_eq!((answer.status().as_u16(), set_cookies(&answer).len()), (503, 0), "{answer:?}");
        }
        local.ok();
        assert_eq!(socket.call::<who_am_i>(NoInput {}).await.unwrap_err().code, "unavailable");
    }
    redis.thaw();
    testing::until("ada is signed in", async || {
        let read = ada.get("/api/whoAmI").await;
        assert_ne!(read.error_code().as_deref(), Some("unauthenticated"));
        read.status() == 200 && read.json()["result"] == "ada"
    })
    .await;
    assert_eq!(socket.call::<who_am_i>(NoInput {}).await.unwrap().as_deref(), Some("ada"));
}

/// The documented time within which sessions are ended again.
const AGAIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_session_that_ended_is_ended_again_if_redis_comes_back_with_older_data() {
    let mut redis = Redis::start().await;
    let (one, two) = pair(&redis).await;
    let cookie = cookie_of(&one);
    let [ada, bob, cy, eve] = [one.client(), two.client(), one.client(), one.client()];
    let mut copies = Vec::new();
    for (client, user) in [(&ada, "ada"), (&bob, "bob"), (&cy, "cy"), (&eve, "eve")] {
        sign_in_as(client, user).await;
        let copy = two.client();
        copy.set_cookie(&cookie, &client.cookie(&cookie).unwrap());
        copies.push(copy);
    }
    let mut stays = eve.socket().await;
    redis.keep();
    ada.post("/api/signOut", json!({})).await.ok();
    assert_eq!(two.node().sessions().end_all("bob").await.unwrap(), 1);
    cy.post("/api/renew", json!({})).await.ok();
    redis.kill().await;
    redis.start_older().await;
    let back = Instant::now();
    testing::until("they have ended again, and so has the id before a new one", async || {
        let ended = async |client: &TestClient| {
            let read = client.get("/api/whoAmI").await;
            read.status() == 200 && read.json()["result"] == json!(null)
        };
        ended(&copies[0]).await && ended(&copies[1]).await && ended(&copies[2]).await
    })
    .await;
    check_time("sessions are ended again", back.elapsed(), AGAIN);
    assert_eq!(user_of(&copies[3]).await, "eve");
    assert_eq!(stays.call::<who_am_i>(NoInput {}).await.unwrap().as_deref(), Some("eve"));
}

#[session]
#[derive(Clone)]
#[serde(deny_unknown_fields)]
struct Strict {
    user: String,
}

impl SessionData for Strict {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }
}

/// The user, for a release that knows fewer fields and takes no others.
#[action(get)]
async fn strict(_ctx: Context, session: Session<Strict>, _: NoInput) -> Result<Option<String>, ActionError> {
    Ok(session.get().map(|strict| strict.user.clone()))
}

#[session]
#[derive(Clone)]
struct Next {
    user: Option<String>,
    visits: u32,
    #[serde(default)]
    theme: String,
}

impl SessionData for Next {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// Counts a visit, and a field that the release before does not have.
#[action(name = "visit", post)]
async fn visit_next(_ctx: Context, session: Session<Next>, _: NoInput) -> Result<String, ActionError> {
    let next = session.update(|next| {
        next.visits += 1;
        next.theme.push('x');
    });
    Ok(next.await?.theme.clone())
}

/// Two releases of the application, a node of each.
async fn two_releases(redis: &Redis, next: fn() -> App) -> (TestApp, TestApp) {
    let is_first = AtomicBool::new(true);
    let releases = move || if is_first.swap(false, SeqCst) { app() } else { next() };
    testing::two(releases, format!("redis://{}", redis.addr())).await
}

#[tokio::test]
async fn a_release_with_a_field_more_loses_none_to_the_one_before() {
    let redis = Redis::start().await;
    let next = || App::new("shop").session::<Next>().actions(actions![visit_next]);
    let (old, new) = two_releases(&redis, next).await;
    let ada = old.client();
    sign_in_as(&ada, "ada").await;
    for turn in 0..10 {
        let visits = (0..100).map(|number| {
            let client = if number % 2 == 0 { ada.clone() } else { ada.at(&new) };
            async move { client.post("/api/visit", json!({})).await.ok() }
        });
        join_all(visits).await;
        let last = ada.at(&new).post("/api/visit", json!({})).await.ok();
        assert_eq!(last.json()["result"].as_str().unwrap().len(), (turn + 1) * 51);
    }
    assert_eq!(ada.post("/api/visit", json!({})).await.ok().json()["result"], 1011);
}

#[tokio::test]
async fn a_value_that_does_not_decode_is_none_and_is_kept() {
    let redis = Redis::start().await;
    let next = || App::new("shop").session::<Strict>().actions(actions![strict]);
    let (old, new) = two_releases(&redis, next).await;
    let ada = old.client();
    sign_in_as(&ada, "ada").await;
    let read = ada.at(&new).get("/api/strict").await.ok();
    assert_eq!((read.json()["result"].clone(), set_cookies(&read).len()), (Value::Null, 0));
    let mut socket = ada.at(&new).socket().await;
    assert_eq!(socket.call::<strict>(NoInput {}).await.unwrap(), None);
    assert_eq!(user_of(&ada).await, "ada");
}

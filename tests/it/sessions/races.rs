//! Ends of sessions against everything that may come at the same time, with a slow way to Redis. `ROUNDS` sets how often:
//! `just sessions` sets full numbers.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use phalanx::extend::backend::SessionKey;
use phalanx::prelude::*;
use phalanx::testing;
use phalanx::testing::{TestApp, TestClient};
use phalanx_testkit::{Proxy, Redis, print};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{app, rounds, set_cookies, sign_in_as, user_of, who_am_i};

/// The time of each direction to Redis.
const DELAY: Duration = Duration::from_millis(50);

/// Rounds that run at once, each with a user of its own. They share the slow way, on which messages wait for each other.
const AT_ONCE: usize = 4;

/// What a call waits for Redis, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes with a slow way to their Redis.
struct SlowPair {
    one: TestApp,
    two: TestApp,
    cookie: String,
    redis: Redis,
    _proxy: Proxy,
}

impl SlowPair {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let proxy = Proxy::before(redis.addr()).await;
        let pair = testing::two(app, format!("redis://{}", proxy.addr())).settings(|config| {
            config.session.new_per_second = 0;
            config.redis.command_timeout = PATIENCE;
            config.websocket.upgrades_per_second = 0;
        });
        let (one, two) = pair.await;
        proxy.delay(DELAY);
        let cookie = format!("{}-session", one.node().config().cluster.name);
        Self { one, two, cookie, redis, _proxy: proxy }
    }

    /// A client at the second node with a copy of the cookie, as if it were another device: a sign-out does not take it.
    fn copy_at_two(&self, client: &TestClient) -> TestClient {
        let copy = self.two.client();
        copy.set_cookie(&self.cookie, &client.cookie(&self.cookie).unwrap());
        copy
    }

    fn key(&self, id: &str) -> String {
        format!("phalanx:{}:session:{}", self.one.node().config().cluster.name, SessionKey::of(id).to_hex())
    }
}

/// From 0 to 19 ms, in another order than the rounds.
fn offset(round: usize) -> Duration {
    Duration::from_millis(round as u64 * 7 % 20)
}

#[tokio::test]
async fn no_socket_outlives_an_end_that_comes_while_it_is_upgraded_on_another_node() {
    let (pair, rounds) = (SlowPair::start().await, rounds(24));
    let run = async |round: usize| {
        let (user, ada) = (format!("user{round}"), pair.one.client());
        sign_in_as(&ada, &user).await;
        let there = pair.copy_at_two(&ada);
        let upgrading = tokio::spawn(async move {
            sleep(offset(round) + DELAY * (round % 6) as u32).await; // beside each step of the upgrade
            there.socket().await
        });
        ada.post("/api/signOut", json!({})).await.ok();
        let ended = Instant::now();
        // Refused, since it saw the end, or closed by it, or of a guest, since it came later.
        let Ok(mut socket) = upgrading.await else { return "refused" };
        let users = pair.two.node().connections().user(&user);
        let left = async {
            while users.count().await.unwrap().count > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let closed = timeout(Duration::from_secs(2).saturating_sub(ended.elapsed()), left).await;
        assert!(closed.is_ok(), "round {round}: a socket of the session is open");
        let call = tokio::spawn(async move { socket.call::<who_am_i>(NoInput {}).await });
        match call.await {
            Ok(reply) => {
                assert_eq!(reply.unwrap(), None, "round {round}");
                "a guest's"
            }
            Err(_) => "closed",
        }
    };
    let outcomes: Vec<&str> = stream::iter((0..rounds).map(run)).buffer_unordered(AT_ONCE).collect().await;
    let count = |wanted: &str| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let [refused, closed, guests] = ["refused", "closed", "a guest's"].map(count);
    print(format_args!("{rounds} ends against upgrades: {refused} refused, {closed} closed, {guests} of guests"));
}

#[tokio::test]
async fn no_session_comes_back_by_what_runs_beside_its_end() {
    let (pair, rounds) = (SlowPair::start().await, rounds(24));
    let run = async |round: usize| {
        let (user, ada) = (format!("user{round}"), pair.one.client());
        sign_in_as(&ada, &user).await;
        let there = pair.copy_at_two(&ada);
        let key = pair.key(&ada.cookie(&pair.cookie).unwrap());
        // As if it were unused for long: the next use lets it go on.
        pair.redis.command(&format!("PEXPIRE {key} 600000")).await;
        let beside = async |path: &'static str| {
            sleep(offset(round)).await;
            match path {
                "/api/whoAmI" => there.get(path).await,
                _ => there.post(path, json!({})).await,
            }
        };
        let end = async {
            sleep(DELAY * (round % 4) as u32).await; // before and after the reads of the others
            ada.post("/api/signOut", json!({})).await.ok()
        };
        let (used, updated, renewed, _) =
            tokio::join!(beside("/api/whoAmI"), beside("/api/visit"), beside("/api/renew"), end);
        let mut keys = vec![key];
        for answer in [&used, &updated, &renewed] {
            let ids = set_cookies(answer).into_iter().filter_map(|cookie| {
                let value = cookie.split_once('=')?.1.split(';').next()?;
                (!value.is_empty()).then(|| pair.key(value))
            });
            keys.extend(ids);
        }
        let left = pair.redis.command(&format!("EXISTS {}", keys.join(" "))).await;
        assert_eq!(left.trim(), ":0", "round {round}");
        assert_eq!(pair.one.node().sessions().of(&user).await.unwrap(), [], "round {round}");
        [used, updated, renewed].map(|answer| usize::from(answer.status() == 200))
    };
    let outcomes: Vec<[usize; 3]> = stream::iter((0..rounds).map(run)).buffer_unordered(AT_ONCE).collect().await;
    let [used, updated, renewed] = [0, 1, 2].map(|call| outcomes.iter().map(|done| done[call]).sum::<usize>());
    print(format_args!("{rounds} ends: beside them {used} uses, {updated} updates and {renewed} renewals were done"));
}

/// By a script that answers after the node was told of the end by Redis.
#[tokio::test]
async fn a_socket_that_signs_out_gets_its_reply_first_whatever_is_faster() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (one, _two) = testing::two(app, format!("redis://{}", proxy.addr())).await;
    proxy.delay_replies_to("session:", DELAY * 2);
    for round in 0..rounds(10) {
        let ada = one.client();
        sign_in_as(&ada, "ada").await;
        let (mut own, mut other) = (ada.socket().await, ada.socket().await);
        own.call::<super::sign_out>(NoInput {}).await.unwrap();
        assert_eq!((own.closed().await, other.closed().await), (4501, 4501), "round {round}");
    }
}

#[tokio::test]
async fn answers_to_a_stale_cookie_leave_a_sign_in_alone() {
    let redis = Redis::start().await;
    let pair = testing::two(app, format!("redis://{}", redis.addr()));
    let pair = pair.settings(|config| {
        config.session.new_per_second = 0;
        config.redis.command_timeout = PATIENCE;
    });
    let (one, two) = pair.await;
    let (cookie, rounds) = (format!("{}-session", one.node().config().cluster.name), rounds(20));
    for round in 0..rounds {
        let ada = one.client();
        ada.set_cookie(&cookie, &"x".repeat(43));
        let calls = (0..200).map(|number| {
            let client = if number % 2 == 0 { ada.clone() } else { ada.at(&two) };
            async move {
                match number {
                    100 => sign_in_as(&client, "ada").await,
                    _ => drop(client.get("/api/whoAmI").await.ok()),
                }
            }
        });
        join_all(calls).await;
        assert_eq!(user_of(&ada).await, "ada", "round {round}");
    }
    print(format_args!("{rounds} sign-ins beside 199 calls with a stale cookie"));
}

//! Rate limits over several nodes, and while their Redis is away. `just counts` sets `LIMIT=100/1m`.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::{Config, LimitRate, LimitSetting};
use phalanx::prelude::*;
use phalanx_testkit::{Redis, print};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::SOON;
use crate::app::settings;
use crate::client::get;

/// Few calls in a short time.
#[action(get, limit = "20/1s")]
async fn often(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Few calls in a long time, and it ends before a command to a Redis that is away does.
#[action(get, deadline = "1s", limit = "5/1h")]
async fn seldom(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Has no limit.
#[action(get)]
async fn free(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// The limit of `often`, and the windows for which it is attacked.
fn attacked() -> (LimitRate, u32) {
    match std::env::var("LIMIT").map(|limit| limit.parse()) {
        Err(_) => (LimitRate { calls: 20, window: Duration::from_secs(1) }, 6),
        Ok(Ok(LimitSetting::Rate(rate))) => (rate, 4),
        Ok(other) => panic!("LIMIT={other:?}"),
    }
}

async fn node(id: &str, redis: &Redis, change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    config.general.id = id.to_owned();
    change(&mut config);
    let app = App::new("laws").actions(actions![often, seldom, free]);
    app.start_in_cluster(config, &redis.url()).await.unwrap()
}

async fn status(node: &RunningApp, path: &str) -> u16 {
    get(node.addr(), path).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_sees_more_calls_than_the_limit_whichever_nodes_they_are_sent_to() {
    let (rate, windows) = attacked();
    let (calls, window) = (rate.calls as usize, rate.window);
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["one", "two", "three"] {
        let change = |config: &mut Config| {
            config.limits.named.insert("often".to_owned(), LimitSetting::Rate(rate));
        };
        nodes.push(node(id, &redis, change).await);
    }
    // Eight adversaries at each node. Shortly before there is room, and until it is used up, each sends the next request when
    // the last one is answered: so the edge of the window is used to the millisecond.
    let (mut adversaries, end) = (JoinSet::new(), Instant::now() + windows * window);
    for addr in nodes.iter().map(RunningApp::addr).cycle().take(24) {
        adversaries.spawn(async move {
            let mut counted = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                let answer = get(addr, "/api/often").await;
                match answer.status {
                    200 => counted.push((sent, Instant::now())),
                    429 => {
                        let after = answer.json()["error"]["details"][0]["retryAfterMs"].as_u64().unwrap();
                        sleep_until(end.min(Instant::now() + Duration::from_millis(after.saturating_sub(20)))).await;
                    }
                    other => panic!("{other}"),
                }
            }
            counted
        });
    }
    let mut counted: Vec<_> = adversaries.join_all().await.into_iter().flatten().collect();
    assert!(counted.len() >= (windows as usize - 2) * calls, "the limit is used: {}", counted.len());
    // A call was counted between its request and its answer. So those that lie in a window with both are at most so many.
    counted.sort_unstable();
    let mut most = 0;
    for (start, _) in &counted {
        let within = counted.iter().filter(|(sent, answered)| sent >= start && *answered < *start + window).count();
        assert!(within <= calls, "{within} calls within {window:?}");
        most = most.max(within);
    }
    let all = counted.len();
    print(format_args!("a limit of {rate}: {all} calls in {windows} windows, {most} at most in any of {all} windows"));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_refused_call_costs_redis_no_command() {
    let redis = Redis::start().await;
    let (one, two) = (node("one", &redis, |_| {}).await, node("two", &redis, |_| {}).await);
    for node in [&one, &two, &one, &two, &one] {
        assert_eq!(status(node, "/api/seldom").await, 200);
    }
    assert_eq!(status(&two, "/api/seldom").await, 429, "it learns that by the one command that is left");
    let (gets, start) = (redis.ran("get").await, Instant::now());
    for _ in 0..200 {
        assert_eq!((status(&one, "/api/seldom").await, status(&two, "/api/seldom").await), (429, 429));
    }
    // The renewal of a lease has a GET as well, each second.
    let of_leases = 2 * (start.elapsed().as_secs() + 2);
    let gets = redis.ran("get").await - gets;
    assert!(gets <= of_leases, "{gets} for 400 refused calls");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn each_node_has_the_limit_for_itself_while_redis_is_frozen() {
    let redis = Redis::start().await;
    let (one, two) = (node("one", &redis, |_| {}).await, node("two", &redis, |_| {}).await);
    assert_eq!(status(&one, "/api/seldom").await, 200);
    redis.freeze();
    for node in [&one, &two] {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(status(node, "/api/seldom").await);
            assert_eq!(status(node, "/api/free").await, 200);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    }
    let metrics = String::from_utf8(get(one.admin_addr().unwrap(), "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_limited_calls_alone_total{limit=\"seldom\"}"), "{metrics}");
    redis.thaw();
    let back = async {
        while redis.command("EXISTS phalanx:laws:limit:{a:127.0.0.1}:often:1000").await != ":1\r\n" {
            status(&one, "/api/often").await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("the nodes ask Redis again");
    one.stop().await;
    two.stop().await;
}

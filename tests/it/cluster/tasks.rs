//! Jobs of nodes that die, stop, and freeze.

use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal};
use tokio::time::{Instant, sleep, timeout};

mod away;
mod batches;
mod campaign;
mod children;
mod full;
mod hand_over;
pub(crate) mod harness;
pub(crate) mod journal;
mod limits;
mod lost_answers;
mod operations;
mod poison;
mod rates;
mod risks;
mod rolling;
mod sign;
mod stalls;
mod waiting;

/// The limit of waits that no test is about.
const SOON: Duration = Duration::from_secs(30);

async fn start_node(url: &str, title: &str) -> Process {
    let environment = [("REDIS_URL", url), ("PHALANX_TITLE", title), ("PHALANX__GENERAL__GRACE", "500ms")];
    Process::start("tour", &environment).await
}

async fn generation(node: &Process) -> String {
    super::status(node.addr).await["generation"].as_str().unwrap().to_owned()
}

async fn processed(redis: &Redis) -> String {
    redis.command("GET resque:stat:processed").await.lines().nth(1).unwrap_or("0").to_owned()
}

/// Waits; returns how long.
async fn until(condition: &str, mut is_true: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    let waiting = async {
        while !is_true().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{condition}"));
    began.elapsed()
}

/// The jobs of a killed node are in their queues again, without those that this death convicts.
#[tokio::test]
async fn the_jobs_of_a_killed_node_go_back_to_their_queues() {
    let redis = Redis::start().await;
    let one = start_node(&redis.url(), "one").await;
    let running = format!("phalanx:tour:running:{}", generation(&one).await);
    let _other = start_node(&redis.url(), "other").await;
    one.freeze(); // it compares the hash with its slots
    for (field, id) in [("101 default 1 0 0", "a"), ("102 default 3 1 0", "b"), ("103 default 1 2 0", "c")] {
        let job = format!(r#"{{"class":"noop","queue":"default","args":[],"id":"{id}"}}"#);
        redis.command(&format!("HSET {running} '{field}' '{job}'")).await;
    }
    one.signal(Signal::KILL);
    let took = until("its jobs are given back", async || {
        redis.command(&format!("EXISTS {running}")).await == ":0\r\n" && processed(&redis).await == "2"
    })
    .await;
    println!("two jobs of a killed node ran after {took:?}");
    let failed = redis.command("LRANGE resque:failed 0 -1").await;
    assert!(failed.contains("one:") && failed.contains("poison") && failed.contains(r#""id":"c""#), "{failed}");
}

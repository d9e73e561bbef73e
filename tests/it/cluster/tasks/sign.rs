//! What resque's tools see of a node.

use phalanx_testkit::{Redis, Signal};

use super::{generation, start_node, until};

#[tokio::test]
async fn resques_tools_see_the_job_of_a_node_until_that_is_reaped() {
    let redis = Redis::start().await;
    let url = redis.url();
    let one = start_node(&url, "one").await;
    let of_one = generation(&one).await;
    let job = r#"{"class":"sleep","queue":"default","args":[{"ms":60000}]}"#;
    redis.command(&format!("RPUSH resque:queue:default '{job}'")).await;
    let took = until("the job is shown", async || {
        let keys = redis.command(&format!("KEYS resque:worker:one:{of_one}:*")).await;
        let key = keys.lines().find(|key| key.starts_with("resque:") && !key.ends_with(":started"));
        match key {
            Some(key) => redis.command(&format!("GET '{key}'")).await.contains(r#""payload":{"class":"sleep""#),
            None => false,
        }
    })
    .await;
    println!("a job of a node is shown after {took:?}");
    let other = start_node(&url, "other").await;
    one.signal(Signal::KILL);
    let took = until("the worker of the dead node is gone", async || {
        redis.command(&format!("KEYS resque:worker:*{of_one}*")).await == "*0\r\n"
            && !redis.command("SMEMBERS resque:workers").await.contains(&of_one)
    })
    .await;
    println!("the worker of a killed node is gone after {took:?}");
    let of_other = generation(&other).await;
    until("the other node is there", async || redis.command("SMEMBERS resque:workers").await.contains(&of_other)).await;
}

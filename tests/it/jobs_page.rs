//! The page of the example `jobs`, whose exports survive their node.

use phalanx_testkit::{Process, Redis, Signal};
use serde_json::Value;

use crate::browser::Browser;
use crate::client::get;

/// The row of an export whose text contains this.
fn row(name: &str, text: &str) -> String {
    format!(r#"//*[@id="exports"]/li[strong[.="{name}"] and span[contains(., "{text}")]]"#)
}

#[tokio::test]
async fn an_export_goes_on_at_another_node_after_the_page_that_it_had_reached() {
    let redis = Redis::start().await;
    let url = format!("redis://{}", redis.addr());
    let start = async |id: &str, jobs: &str| {
        let settings =
            [("REDIS_URL", url.as_str()), ("PHALANX__GENERAL__ID", id), ("PHALANX__TASKS__CONCURRENCY", jobs)];
        Process::start("jobs", &settings).await
    };
    let front = start("front", "0").await;
    let mut first = start("first", "1").await;
    let browser = Browser::start().await;
    browser.client.goto(&format!("http://{}/", front.addr)).await.unwrap();
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.submit("#name", "year & <b>month</b>").await;
    browser.wait_for(&row("year & <b>month</b>", "of 40, on first")).await;
    let page = async || {
        let exports = get(front.addr, "/api/exports").await.json();
        exports["exports"][0]["page"].as_u64().unwrap()
    };
    let reached = page().await;
    first.signal(Signal::KILL);
    first.ended().await;
    let second = start("second", "1").await;
    browser.wait_for(&row("year & <b>month</b>", "of 40, on second")).await;
    assert!(page().await >= reached, "it goes on where it was");
    browser.wait_for(&row("year & <b>month</b>", "done, 40 pages")).await;
    // A tab that is opened later reads it.
    browser.client.refresh().await.unwrap();
    browser.wait_for(&row("year & <b>month</b>", "done, 40 pages")).await;
    let exports: Value = get(second.addr, "/api/exports").await.json();
    assert_eq!(exports["exports"].as_array().unwrap().len(), 1, "{exports}");
}

//! The page of the example `jobs`, whose exports and albums survive their node.

use phalanx_testkit::{Process, Redis, Signal, free_port};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::{get, post_json};

/// The row of an export whose text contains this.
fn row(name: &str, text: &str) -> String {
    row_of("exports", name, text)
}

/// The row of an album.
fn album(name: &str, text: &str) -> String {
    row_of("albums", name, text)
}

fn row_of(list: &str, name: &str, text: &str) -> String {
    format!(r#"//*[@id="{list}"]/li[strong[.="{name}"] and span[contains(., "{text}")]]"#)
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

#[tokio::test]
async fn an_album_outlives_its_node_moves_its_bar_and_shows_its_end_once() {
    let redis = Redis::start().await;
    let url = format!("redis://{}", redis.addr());
    let port = free_port().to_string();
    let start = async |port: &str, jobs: &str| {
        let settings = [("REDIS_URL", url.as_str()), ("PORT", port), ("PHALANX__TASKS__CONCURRENCY", jobs)];
        Process::start("jobs", &settings).await
    };
    let front = start(&port, "0").await;
    let browser = Browser::start().await;
    browser.client.goto(&format!("http://{}/", front.addr)).await.unwrap();
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.submit("#album", "sun & <b>sea</b>").await; // of the photos that the page suggests
    browser.wait_for(&album("sun & <b>sea</b>", "0 of 6 photos, 0 failed")).await;

    // The node that made it is killed; another one on the same port knows it from Redis alone.
    drop(front);
    browser.wait_for(r#"//*[@id="state"][contains(., "reconnecting")]"#).await;
    let front = start(&port, "0").await;
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.wait_for(&album("sun & <b>sea</b>", "0 of 6 photos, 0 failed")).await;
    let record = "window.bars = []; const bar = document.querySelector('#albums progress'); \
        new MutationObserver(() => bars.push(bar.value)).observe(bar, { attributeFilter: ['value'] });";
    browser.client.execute(record, vec![]).await.unwrap();
    let worker = start("0", "1").await;
    let over = album("sun & <b>sea</b>", "done, 5 of 6 thumbnails, without notes.txt");
    browser.wait_for(&over).await;
    // An image that the node which stops now has not sent whole stays broken.
    let decode = "await Promise.all([...document.querySelectorAll('#albums img')].map((image) => image.decode()));";
    browser.client.execute(decode, vec![]).await.unwrap();

    // The page reads all albums once more, this one before the one that is made now.
    drop(front);
    let one = json!({ "name": "winter", "photos": [{ "name": "ice.bmp" }] });
    assert_eq!(post_json(worker.addr, "/api/albums", &one.to_string()).await.status, 202);
    let _front = start(&port, "0").await;
    browser.wait_for(&album("winter", "done, 1 of 1 thumbnails")).await;
    let check = "const sea = (list) => [...list].filter((item) => item.textContent.includes('sea')); \
        const [row] = sea(document.querySelectorAll('#albums li')); \
        return [bars, sea(document.querySelectorAll('#news li')).length, await Promise.all( \
        [...row.querySelectorAll('img')].map((image) => image.decode().then(() => image.naturalWidth)))];";
    let shown = browser.client.execute(check, vec![]).await.unwrap();
    assert_eq!((&shown[1], &shown[2]), (&json!(1), &json!([32, 32, 32, 32, 32])), "{shown}");
    let bars: Vec<u64> = shown[0].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap()).collect();
    assert!(bars.is_sorted() && bars[0] < 6 && bars.last() == Some(&6), "{bars:?}");

    // A tab that is opened later shows it, and no news.
    browser.client.refresh().await.unwrap();
    browser.wait_for(&over).await;
    let news = browser.client.execute("return document.querySelectorAll('#news li').length", vec![]).await.unwrap();
    assert_eq!(news, 0);
}

//! Exports from their start to their end.

use std::time::Duration;

use jobs::{Export, exports, start_export};
use phalanx::prelude::NoInput;
use phalanx::serde_json::json;
use phalanx::testing;

#[tokio::test]
async fn an_export_shows_each_page_and_is_listed_for_a_day() {
    let app = testing::start(jobs::app()).await;
    let client = app.client();
    let mut page = client.socket().await;
    page.join("exports").await;
    let started = client.call::<start_export>(Export { name: "year".into(), pages: 3 }).await.unwrap();
    assert_eq!(started.state, "waiting");
    for reached in 1..=3 {
        page.expect(json!({ "message": { "id": started.id, "page": reached, "state": "running" } })).await;
    }
    page.expect(json!({ "message": { "id": started.id, "state": "done" } })).await;

    let listed = || async { client.call::<exports>(NoInput::default()).await.unwrap().exports.remove(0) };
    app.clock().advance(Duration::from_secs(24 * 3600 - 60));
    assert_eq!(listed().await.state, "done");
    app.clock().advance(Duration::from_secs(60));
    assert_eq!(listed().await.state, "waiting", "its progress is forgotten");
}

#[tokio::test]
async fn the_list_keeps_the_newest_exports() {
    let app = testing::start(jobs::app()).await;
    let client = app.client();
    for number in 0..22 {
        client.call::<start_export>(Export { name: format!("export {number}"), pages: 1 }).await.unwrap();
    }
    app.jobs_done().await;
    let listed = client.call::<exports>(NoInput::default()).await.unwrap().exports;
    assert_eq!((listed.len(), &*listed[0].name, &*listed[19].name), (20, "export 2", "export 21"));
    assert!(listed.iter().all(|export| export.state == "done"));
}

#[tokio::test]
async fn an_export_without_pages_is_refused() {
    let app = testing::start(jobs::app()).await;
    let refused = app.client().post("/api/exports", json!({ "name": "", "pages": 0 })).await.refused("invalid_input");
    assert_eq!(refused.json()["error"]["details"].as_array().map(Vec::len), Some(2));
}

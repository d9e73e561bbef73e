//! Exports from their start to their end.

use std::time::Duration;

use jobs::exporting::{export, exports};
use phalanx::prelude::{NoInput, StatusCode};
use phalanx::serde_json::json;
use phalanx::testing;

#[tokio::test]
async fn an_export_shows_each_page_and_is_listed_for_a_day() {
    let app = testing::start(jobs::app()).await;
    let client = app.client();
    let mut page = client.socket().await;
    page.join("exports").await;
    let id = client.post("/api/exports", json!({ "name": "year", "pages": 3 })).await.ok().json()["id"].clone();
    for reached in 1..=3 {
        page.expect(json!({ "message": { "id": id, "page": reached, "state": "running" } })).await;
    }
    page.expect(json!({ "message": { "id": id, "state": "done" } })).await;

    let listed = || async { client.call::<exports>(NoInput::default()).await.unwrap().exports.remove(0) };
    app.clock().advance(Duration::from_secs(24 * 3600 - 60));
    assert_eq!(listed().await.state, "done");
    app.clock().advance(Duration::from_secs(60));
    assert_eq!(listed().await.state, "waiting", "its progress is forgotten");
}

#[tokio::test]
async fn the_list_keeps_the_newest_exports() {
    let app = testing::start(jobs::app()).manual_jobs().await;
    let client = app.client();
    for number in 0..22 {
        client.post("/api/exports", json!({ "name": format!("export {number}"), "pages": 1 })).await.ok();
    }
    app.assert_enqueued::<export>(|export| export.name == "export 21");
    app.refute_enqueued::<export>(|export| export.pages > 1);
    assert_eq!(app.drain().await.done, 22);
    let listed = client.call::<exports>(NoInput::default()).await.unwrap().exports;
    assert_eq!((listed.len(), &*listed[0].name, &*listed[19].name), (20, "export 2", "export 21"));
    assert!(listed.iter().all(|export| export.state == "done"));
}

#[tokio::test]
async fn an_export_is_accepted_and_its_status_has_its_result() {
    let app = testing::start(jobs::app()).inline_jobs().await;
    let client = app.client();
    let accepted = client.post("/api/exports", json!({ "name": "day", "pages": 1 })).await.ok();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let status = client.get(accepted.header("location").unwrap()).await.ok().json();
    assert_eq!((&status["state"], &status["result"]), (&json!("done"), &json!({ "pages": 1 })), "{status}");
    assert_eq!(status["progress"], json!({ "page": 1, "pages": 1 }));
}

#[tokio::test]
async fn an_export_without_pages_is_refused() {
    let app = testing::start(jobs::app()).manual_jobs().await;
    let refused = app.client().post("/api/exports", json!({ "name": "", "pages": 0 })).await.refused("invalid_input");
    app.refute_enqueued::<export>(|_| true);
    assert_eq!(refused.json()["error"]["details"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn no_client_speaks_in_the_room_of_exports() {
    let app = testing::start(jobs::app()).await;
    let mut page = app.client().socket().await;
    page.join("exports").await;
    let said = page.request(json!({ "event": "say", "room": "exports", "message": "done" })).await;
    assert_eq!(said["error"]["code"], "forbidden", "{said}");
}

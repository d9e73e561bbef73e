//! Albums from their start to their end.

use jobs::gallery::{DEADLINE, albums, finish_album, make_thumbnail};
use phalanx::prelude::{NoInput, StatusCode};
use phalanx::serde_json::{Value, json};
use phalanx::testing;

/// An album whose last photo is no picture.
fn summer() -> Value {
    json!({ "name": "summer", "photos": [{ "name": "beach.bmp" }, { "name": "boat.bmp" }, { "name": "notes.txt" }] })
}

#[tokio::test]
async fn an_album_is_accepted_and_told_once_it_is_over() {
    let app = testing::start(jobs::app()).inline_jobs().await;
    let client = app.client();
    let mut page = client.socket().await;
    page.join("albums").await;
    let accepted = client.post("/api/albums", summer()).await.ok();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.json()["state"], "making");

    let progress = page.expect(json!({ "message": { "state": "making" } })).await;
    assert!(progress["message"]["made"].as_u64() >= Some(1), "it counts the job that it follows on: {progress}");
    let over = json!({ "state": "done", "made": 2, "failed": 1, "missing": ["notes.txt"] });
    page.expect(json!({ "message": over })).await;
    page.refute(json!({ "message": { "state": "done" } })).await;
    let path = accepted.header("location").unwrap();
    assert_eq!(client.get(path).await.ok().json()["missing"], json!(["notes.txt"]));
    let thumbnail = client.get(&format!("{path}/beach.bmp")).await.ok();
    assert_eq!((thumbnail.header("content-type"), &thumbnail.bytes()[..2]), (Some("image/bmp"), &b"BM"[..]));
    client.get(&format!("{path}/notes.txt")).await.refused("not_found");
}

#[tokio::test]
async fn an_album_has_a_job_for_each_photo_and_counts_those_that_ended() {
    let app = testing::start(jobs::app()).manual_jobs().await;
    let client = app.client();
    client.post("/api/albums", summer()).await.ok();
    app.assert_enqueued::<make_thumbnail>(|photo| photo.name == "boat.bmp");
    app.refute_enqueued::<finish_album>(|_| true);

    assert_eq!(app.drain().await.failed, 1, "the last photo is no picture, and is not tried again");
    let listed = client.call::<albums>(NoInput::default()).await.unwrap().albums.remove(0);
    assert_eq!((&*listed.state, listed.made, listed.failed), ("done", 2, 1));
}

#[tokio::test]
async fn an_album_whose_time_is_up_says_so() {
    let app = testing::start(jobs::app()).manual_jobs().await;
    let client = app.client();
    let path = client.post("/api/albums", summer()).await.ok().header("location").unwrap().to_owned();
    app.node().tasks().pause("thumbnails").await.unwrap();
    app.advance(DEADLINE).await;
    app.assert_enqueued::<finish_album>(|album| album.name == "summer");
    app.drain().await;
    let expired = client.get(&path).await.ok().json();
    assert_eq!((&expired["state"], &expired["missing"][0]), (&json!("expired"), &json!("beach.bmp")), "{expired}");
}

#[tokio::test]
async fn an_album_without_photos_is_refused() {
    let app = testing::start(jobs::app()).manual_jobs().await;
    let wrong = json!({ "name": "none", "photos": [] });
    app.client().post("/api/albums", wrong).await.refused("invalid_input");
    let wrong = json!({ "name": "nameless", "photos": [{ "name": "" }] });
    let refused = app.client().post("/api/albums", wrong).await.refused("invalid_input");
    assert_eq!(refused.json()["error"]["details"][0]["path"], "photos[0].name");
    app.refute_enqueued::<make_thumbnail>(|_| true);
}

use std::time::Duration;

use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;

use super::{Find, Say, SetName, failure, find, panics, say, set_name, start, who_am_i};

#[tokio::test]
async fn a_client_has_one_cookie_jar_for_http_and_sockets() {
    let app = start().await;
    let (ada, bob) = (app.client(), app.client());
    ada.get("/api/whoAmI").await.refused("unauthenticated");
    let mut early = ada.socket().await;
    ada.post("/api/signIn", json!({ "name": "ada" })).await.ok();
    bob.call::<who_am_i>(NoInput::default()).await.unwrap_err();
    assert_eq!(ada.cookie("user").as_deref(), Some("ada"));
    assert_eq!(ada.call::<who_am_i>(NoInput::default()).await.unwrap(), "ada");
    let (mut phone, mut laptop) = (ada.socket().await, ada.clone().socket().await);
    for socket in [&mut phone, &mut laptop] {
        assert_eq!(socket.call::<who_am_i>(NoInput::default()).await.unwrap(), "ada");
    }
    assert_eq!(early.call::<who_am_i>(NoInput::default()).await.unwrap_err().code, "unauthenticated");

    let mallory = app.client();
    mallory.set_cookie("user", "mallory");
    let refused = mallory.socket().refused().await.refused("forbidden");
    assert_eq!(refused.status(), 403);
    let opened = failure(async { drop(mallory.socket().await) }).await;
    assert!(opened.contains("not you") && opened.contains("testing/clients.rs:"), "{opened}");

    app.clock().advance(Duration::from_secs(24 * 3600));
    ada.get("/api/whoAmI").await.refused("unauthenticated"); // its Max-Age is over
}

#[tokio::test]
async fn actions_are_called_by_their_type_over_http_and_sockets() {
    let app = start().await;
    let ada = app.client();
    let input = Find { shop: "a b/c".into(), tags: vec!["x&y".into(), "z".into()], most: Some(5) };
    let mut socket = ada.socket().await;
    for found in [ada.call::<find>(input.clone()).await.unwrap(), socket.call::<find>(input.clone()).await.unwrap()] {
        assert_eq!((found.shop, found.tags, found.most), (input.shop.clone(), input.tags.clone(), input.most));
    }
    let refused = ada.call::<say>(Say { room: "nowhere".into(), text: "hi".into() }).await.unwrap_err();
    assert_eq!((&*refused.code, refused.to_string().contains("no such room")), ("not_found", true));
    ada.call::<say>(Say { room: "lobby".into(), text: "hi".into() }).await.unwrap();

    let name = SetName { name: "Ada".into() };
    let unrouted = failure(async { drop(ada.call::<set_name>(name.clone()).await) }).await;
    assert!(unrouted.contains("setName") && unrouted.contains("client.socket()"), "{unrouted}");
    assert_eq!(socket.call::<set_name>(name).await.unwrap().name, "Ada");
}

#[tokio::test]
async fn a_failed_check_shows_status_and_body() {
    let app = start().await;
    let ada = app.client();
    let failed = failure(async { drop(ada.get("/api/whoAmI").await.ok()) }).await;
    for part in ["GET /api/whoAmI", "401", "sign in first"] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    let failed = failure(async { drop(ada.get("/api/whoAmI").await.refused("forbidden")) }).await;
    assert!(failed.contains("unauthenticated") && failed.contains("forbidden"), "{failed}");
    let failed = failure(async { drop(ada.get("/api/panics").await.ok()) }).await;
    assert!(failed.contains("500") && failed.contains("in an action, on purpose"), "{failed}");
    assert_eq!(app.take_panics().len(), 1);
}

#[tokio::test]
async fn requests_take_any_method_header_and_body() {
    let app = start().await;
    let ada = app.client().with_header("x-shop", "3");
    let sent = ada.request(http::Method::POST, "/api/signIn").body("application/x-www-form-urlencoded", "name=ada");
    assert_eq!(sent.await.ok().read::<serde_json::Value>()["result"], "ada");
    let wrong = ada.post("/api/signIn", json!({})).header("accept-language", "de").await.refused("invalid_input");
    assert_eq!(
        (wrong.status(), &wrong.json()["error"]["details"][0]["path"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("name"))
    );
    ada.delete("/api/signIn").await.refused("method_not_allowed");
}

#[tokio::test]
async fn an_expected_frame_is_found_by_its_fields_in_any_order() {
    let app = start().await;
    let (ada, bob) = (app.client(), app.client());
    let (mut phone, mut laptop) = (ada.socket().await, bob.socket().await);
    for socket in [&mut phone, &mut laptop] {
        socket.join("lobby").await;
    }
    phone.say("lobby", json!({ "text": "one", "n": [1, 2] })).await;
    ada.post("/api/rooms/lobby/say", json!({ "text": "two" })).await.ok();
    for socket in [&mut phone, &mut laptop] {
        socket.expect(json!({ "message": "two", "from": "0" })).await;
        let whole = socket.expect(json!({ "message": { "text": "one" } })).await;
        assert_eq!((&whole["room"], &whole["message"]["n"]), (&json!("lobby"), &json!([1, 2])));
    }
    phone.refute(json!({ "message": "two" })).await; // it was taken
    laptop.leave("lobby").await;
    laptop.send(json!({ "event": "roomView", "room": "lobby", "messageId": 9 })).await;
    laptop.expect(json!({ "messageId": 9, "error": { "code": "forbidden" } })).await;
}

#[tokio::test]
async fn a_frame_that_does_not_come_fails_with_every_frame_and_the_line_of_the_test() {
    let app = start().await;
    let mut socket = app.client().socket().await;
    socket.join("lobby").await;
    socket.say("lobby", "one").await;
    let failed = failure(async {
        socket.expect_within(Duration::from_millis(50), json!({ "message": "two" })).await;
    })
    .await;
    let parts =
        ["testing/clients.rs:", r#"{"message":"two"}"#, "50ms", r#""welcome""#, "> {", "< (new) {\"message\":\"one\""];
    for part in parts {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    let refused = failure(async { socket.join("nowhere").await }).await;
    assert!(refused.contains("no such room"), "{refused}");
}

#[tokio::test]
async fn what_was_refuted_had_not_come_however_late_it_would_have_been_read() {
    let app = start().await;
    let ada = app.client();
    let mut socket = ada.socket().await;
    socket.join("lobby").await;
    for round in 0..200 {
        socket.refute(json!({ "message": format!("m{round}") })).await;
        ada.call::<say>(Say { room: "lobby".into(), text: format!("m{round}") }).await.unwrap();
        let failed = failure(async { socket.refute(json!({ "message": format!("m{round}") })).await }).await;
        assert!(failed.contains("was not to come") && failed.contains("testing/clients.rs:"), "{failed}");
    }
}

#[tokio::test]
async fn a_socket_ends_with_the_code_of_its_close() {
    let app = start().await;
    let ada = app.client();
    let (mut closed, leaves) = (ada.socket().await, ada.socket().await);
    let id = phalanx::ConnectionId::parse(closed.id()).unwrap();
    app.node().connections().apply(&id, "destroy", json!([4501])).await.unwrap();
    assert_eq!(closed.closed().await, 4501);
    closed.refute(json!({ "any": "frame" })).await;
    let late = failure(async { drop(closed.expect(json!({ "any": "frame" })).await) }).await;
    assert!(late.contains("closed with 4501"), "{late}");
    leaves.close().await;
    let dropped = ada.socket().await;
    drop(dropped);
    testing::until("no connection is left", async || app.node().connections().count() == 0).await;
    let mut last = ada.socket().await;
    app.stop().await;
    assert_eq!(last.closed().await, 1001, "it learns of the stop");
}

#[tokio::test]
async fn what_panics_elsewhere_is_named_by_the_failure_that_it_caused() {
    let app = start().await;
    let ada = app.client();
    let mut socket = ada.socket().await;
    let failed = failure(async {
        _ = ada.call::<panics>(NoInput::default()).await;
        socket.expect_within(Duration::from_millis(50), json!({ "never": 1 })).await;
    })
    .await;
    assert!(failed.contains("in an action, on purpose"), "{failed}");
    app.take_panics();
}

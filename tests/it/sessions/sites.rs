use phalanx::prelude::*;
use phalanx::testing;
use phalanx::testing::TestApp;
use serde_json::{Value, json};

use super::{COOKIE, app, sign_in_as, who_am_i};

/// The user that a page of this origin finds, by a request and by a socket.
async fn user_by(app: &TestApp, id: &str, origin: &str) -> (Value, Option<String>) {
    let client = super::with_id(app, id);
    let read = client.get("/api/whoAmI").header("origin", origin).await.ok();
    let mut socket = client.socket().header("origin", origin).await;
    (read.json()["result"].clone(), socket.call::<who_am_i>(NoInput {}).await.unwrap())
}

#[tokio::test]
async fn the_cookie_counts_for_pages_of_this_site_and_of_named_ones() {
    let settings = |config: &mut phalanx::config::Config| {
        config.web.cors_origins = vec!["https://named.example".into(), "*".into()];
        config.websocket.allowed_origins = vec!["https://named.example".into(), "*".into()];
    };
    let app = testing::start(app()).settings(settings).await;
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let id = ada.cookie(COOKIE).unwrap();
    let own = format!("http://{}", app.addr());
    for origin in [&*own, "https://named.example"] {
        assert_eq!(user_by(&app, &id, origin).await, (json!("ada"), Some("ada".to_owned())), "{origin}");
    }
    for origin in ["https://other.example", "null", "https://named.example.other"] {
        assert_eq!(user_by(&app, &id, origin).await, (json!(null), None), "{origin}");
    }
    let followed = super::with_id(&app, &id).get("/api/whoAmI").header("sec-fetch-site", "cross-site").await.ok();
    assert_eq!(followed.json()["result"], "ada", "a link of another site leads here");
    let own_route = super::with_id(&app, &id).get("/own").header("origin", "https://other.example").await;
    own_route.refused("unauthenticated");
    let post = super::with_id(&app, &id).post("/api/visit", json!({})).header("origin", "https://other.example").await;
    post.refused("cross_site");
}

#[tokio::test]
async fn a_token_counts_where_the_settings_say_so() {
    for (has_bearer, expected) in [(true, json!("ada")), (false, json!(null))] {
        let app = testing::start(app()).settings(move |config| {
            config.session.bearer = has_bearer;
            config.websocket.allowed_origins = vec!["*".into()];
        });
        let app = app.await;
        let ada = app.client();
        sign_in_as(&ada, "ada").await;
        let id = ada.cookie(COOKIE).unwrap();
        let token = app.client().with_header("authorization", &format!("Bearer {id}"));
        assert_eq!(super::user_of(&token).await, expected);
        let bad = ada.get("/api/whoAmI").header("authorization", "Bearer bad").await.ok();
        assert_eq!(bad.json()["result"] == "ada", !has_bearer, "a bad token is none, whatever the cookie says");
        let protocols = format!("phalanx.1, phalanx.bearer.{id}");
        let upgrade = app.client().socket().header("sec-websocket-protocol", &protocols);
        let mut socket = upgrade.header("origin", "https://other.example").await;
        assert_eq!(json!(socket.call::<who_am_i>(NoInput {}).await.unwrap()), expected);
    }
}

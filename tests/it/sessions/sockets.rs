use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;

use super::{COOKIE, User, app, end_others, renew, set, sign_in, sign_in_as, sign_out, user_of, visit, who_am_i};

#[tokio::test]
async fn a_socket_has_the_session_of_its_upgrade() {
    let app = testing::start(app()).await;
    let ada = app.client();
    let mut before = ada.socket().await;
    sign_in_as(&ada, "ada").await;
    let mut after = ada.socket().await;
    assert_eq!(before.call::<who_am_i>(NoInput {}).await.unwrap(), None);
    assert_eq!(after.call::<who_am_i>(NoInput {}).await.unwrap().as_deref(), Some("ada"));
    assert_eq!(after.call::<visit>(NoInput {}).await.unwrap(), 1);
    assert_eq!(ada.post("/api/visit", json!({})).await.ok().json()["result"], 2, "it is the same session");
    assert_eq!(after.call::<visit>(NoInput {}).await.unwrap(), 3, "and it is read in each call");
}

#[tokio::test]
async fn a_session_begins_and_gets_a_new_id_over_http_alone() {
    let app = testing::start(app()).await;
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let user = || User { user: "bob".into(), how: String::new() };
    let (mut signed_in, mut nobody) = (ada.socket().await, app.client().socket().await);
    for socket in [&mut signed_in, &mut nobody] {
        assert_eq!(socket.call::<sign_in>(user()).await.unwrap_err().code, "session_needs_http");
        assert_eq!(socket.call::<set>(user()).await.unwrap_err().code, "session_needs_http");
        assert_eq!(socket.call::<renew>(NoInput {}).await.unwrap_err().code, "session_needs_http");
    }
    assert_eq!(nobody.call::<visit>(NoInput {}).await.unwrap_err().code, "unauthenticated");
    assert_eq!(signed_in.call::<end_others>(NoInput {}).await.unwrap(), 0);
    signed_in.call::<set>(User { user: "ada".into(), how: String::new() }).await.unwrap();
    assert_eq!(user_of(&ada).await, "ada");
}

#[tokio::test]
async fn a_socket_can_sign_out() {
    let app = testing::start(app()).await;
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let mut socket = ada.socket().await;
    socket.call::<sign_out>(NoInput {}).await.unwrap();
    assert_eq!(socket.closed().await, 4501);
    assert_eq!(user_of(&ada).await, json!(null));
}

#[tokio::test]
async fn an_upgrade_under_the_id_before_is_refused_and_one_under_an_unknown_one_is_nobodys() {
    let app = testing::start(app()).await;
    let ada = app.client();
    ada.post("/api/set", json!({})).await.ok();
    let old = super::with_id(&app, &ada.cookie(COOKIE).unwrap());
    sign_in_as(&ada, "ada").await;
    assert_eq!(old.socket().refused().await.refused("session_ended").status(), 401);
    let mut nobody = super::with_id(&app, &"x".repeat(43)).socket().await;
    assert_eq!(nobody.call::<who_am_i>(NoInput {}).await.unwrap(), None);
}

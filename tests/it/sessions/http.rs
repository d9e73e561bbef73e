use std::time::Duration;

use phalanx::testing;
use serde_json::json;

use super::{COOKIE, app, set_cookies, sign_in_as, user_of, with_id};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn no_write_of_a_call_brings_back_the_session_that_it_had() {
    let app = testing::start(app()).await;
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let refused = ada.post("/api/stubborn", json!({ "user": "ada" })).await;
    assert_eq!((refused.json()["error"]["code"].clone(), set_cookies(&refused).len()), (json!("session_ended"), 0));
    assert_eq!(user_of(&ada).await, json!(null));
}

#[tokio::test]
async fn a_session_lives_from_sign_in_to_sign_out() {
    let app = testing::start(app()).await;
    let ada = app.client();
    assert_eq!(user_of(&ada).await, json!(null));
    assert_eq!(ada.cookie(COOKIE), None, "nothing is stored before the first write");
    let signed_in = ada.post("/api/signIn", json!({ "user": "ada" })).await.ok();
    let [cookie] = &set_cookies(&signed_in)[..] else { panic!("{signed_in:?}") };
    let (id, rest) = cookie.strip_prefix("shop-session=").unwrap().split_once(';').unwrap();
    assert_eq!(rest, " Path=/; HttpOnly; SameSite=Lax; Max-Age=7776000");
    assert_eq!((id.len(), ada.cookie(COOKIE).as_deref()), (43, Some(id)));
    assert_eq!(signed_in.header("cache-control"), Some("no-store"));
    assert_eq!(user_of(&ada).await, "ada");
    for visits in 1..4 {
        let visit = ada.post("/api/visit", json!({})).await.ok();
        assert_eq!((visit.json()["result"].clone(), set_cookies(&visit).len()), (json!(visits), 0));
    }
    let mine = ada.get("/api/mine").await.ok();
    assert_eq!(mine.json(), json!({ "user": "ada", "sessions": 1, "current": 1 }));
    assert_eq!(mine.header("cache-control"), Some("private, no-cache"), "never public");
    let signed_out = ada.post("/api/signOut", json!({})).await.ok();
    assert_eq!(set_cookies(&signed_out), ["shop-session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"]);
    assert_eq!(ada.cookie(COOKIE), None);
    let stale = with_id(&app, id);
    assert_eq!(user_of(&stale).await, json!(null));
    ada.get("/api/mine").await.refused("unauthenticated");
    stale.post("/api/visit", json!({})).await.refused("unauthenticated");
    let again = stale.post("/api/signOut", json!({})).await.ok();
    assert_eq!(set_cookies(&again).len(), 1, "an end of none clears the cookie too");
}

#[tokio::test]
async fn an_id_that_is_none_is_left_alone() {
    let app = testing::start(app()).await;
    for id in ["x".repeat(43), "short".to_owned(), "x".repeat(44), format!("{}%20", "x".repeat(40))] {
        let client = with_id(&app, &id);
        let read = client.get("/api/whoAmI").await.ok();
        assert_eq!((read.json()["result"].clone(), set_cookies(&read).len()), (json!(null), 0), "{id}");
        assert_eq!(client.get("/api/mine").await.refused("unauthenticated").status(), 401);
        assert_eq!(client.cookie(COOKIE).as_deref(), Some(&*id));
    }
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let id = ada.cookie(COOKIE).unwrap();
    let twice = format!("{COOKIE}={id}; {COOKIE}={id}");
    let read = app.client().get("/api/whoAmI").header("cookie", &twice).await.ok();
    assert_eq!(read.json()["result"], json!(null), "one of two may be planted");
}

#[tokio::test]
async fn a_sign_in_has_a_new_id_and_the_old_one_shows_nothing_of_it() {
    let app = testing::start(app()).await;
    let attacker = app.client();
    attacker.post("/api/set", json!({})).await.ok();
    let planted = attacker.cookie(COOKIE).unwrap();
    let victim = with_id(&app, &planted);
    sign_in_as(&victim, "ada").await;
    let id = victim.cookie(COOKIE).unwrap();
    assert_ne!(id, planted);
    assert_eq!(user_of(&attacker).await, json!(null));
    assert_eq!(attacker.post("/api/visit", json!({})).await.ok().json()["result"], 8, "of the copy alone");
    assert_eq!(victim.post("/api/visit", json!({})).await.ok().json()["result"], 1);
    attacker.post("/api/renew", json!({})).await.refused("session_renewed");
    attacker.post("/api/set", json!({ "user": "eve" })).await.refused("session_renewed");
    app.clock().advance(Duration::from_secs(11));
    attacker.post("/api/visit", json!({})).await.refused("unauthenticated");
    assert_eq!(user_of(&victim).await, "ada");
}

#[tokio::test]
async fn a_sign_out_under_the_id_before_ends_the_session() {
    let app = testing::start(app()).await;
    let ada = app.client();
    ada.post("/api/set", json!({})).await.ok();
    let old = with_id(&app, &ada.cookie(COOKIE).unwrap());
    sign_in_as(&ada, "ada").await;
    old.post("/api/signOut", json!({})).await.ok();
    assert_eq!((user_of(&ada).await, user_of(&old).await), (json!(null), json!(null)));
}

#[tokio::test]
async fn a_write_that_changes_the_user_renews() {
    let app = testing::start(app()).await;
    let ada = app.client();
    ada.post("/api/set", json!({})).await.ok();
    let first = ada.cookie(COOKIE).unwrap();
    let same = ada.post("/api/set", json!({})).await.ok();
    assert_eq!((set_cookies(&same).len(), ada.cookie(COOKIE).unwrap()), (0, first.clone()));
    ada.post("/api/set", json!({ "user": "ada" })).await.ok();
    let second = ada.cookie(COOKIE).unwrap();
    assert_ne!(first, second);
    let renewed = ada.post("/api/renew", json!({})).await.ok();
    assert_ne!(second, ada.cookie(COOKIE).unwrap());
    assert_eq!(user_of(&ada).await, "ada");
    assert_eq!(renewed.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_cookie_goes_with_whatever_is_answered() {
    let app = testing::start(app()).settings(|config| config.general.action_deadline = Duration::from_secs(1)).await;
    for (how, status) in [("error", 409), ("panic", 500), ("late", 504)] {
        let client = app.client();
        let answer = client.post("/api/signIn", json!({ "user": "ada", "how": how })).await;
        assert_eq!((answer.status().as_u16(), set_cookies(&answer).len()), (status, 1), "{how}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(user_of(&client).await, "ada", "an error after a write does not undo it");
    }
    assert_eq!(app.take_panics().len(), 1);
    let client = app.client();
    assert_eq!(client.post("/api/nested", json!({})).await.ok().json()["result"], "nested", "calls share the session");
    assert_eq!(user_of(&client).await, "nested");
    let twice = app.client();
    let answer = twice.post("/api/signIn", json!({ "user": "ada", "how": "twice" })).await.ok();
    assert_eq!((set_cookies(&answer).len(), user_of(&twice).await), (1, json!("ada")));
    let late = app.client().get("/api/stream").await.ok();
    assert_eq!((late.text().as_str(), set_cookies(&late).len()), ("response_started", 0));
}

#[tokio::test]
async fn a_session_works_in_own_routes() {
    let app = testing::start(app()).await;
    let ada = app.client();
    assert_eq!(ada.get("/own").await.refused("unauthenticated").status(), 401);
    let signed_in = ada.post("/own/signIn", json!({})).await.ok();
    assert_eq!((set_cookies(&signed_in).len(), signed_in.header("cache-control")), (1, Some("no-store")));
    let read = ada.get("/own").await.ok();
    assert_eq!((read.text().as_str(), read.header("cache-control")), ("own", Some("private, no-cache")));
}

#[tokio::test]
async fn sessions_expire_when_idle_and_at_their_end() {
    let app = testing::start(app()).await;
    let (idle, used) = (app.client(), app.client());
    sign_in_as(&idle, "idle").await;
    sign_in_as(&used, "used").await;
    for _ in 0..8 {
        app.clock().advance(11 * DAY);
        assert_eq!(user_of(&used).await, "used");
    }
    assert_eq!(user_of(&idle).await, json!(null), "it is idle for more than 14 days");
    let cookie = used.cookie(COOKIE).unwrap();
    app.clock().advance(2 * DAY);
    assert_eq!(user_of(&with_id(&app, &cookie)).await, json!(null), "the sign-in is 90 days ago");
    assert_eq!(used.cookie(COOKIE), None, "the cookie has ended with it");
}

#[tokio::test]
async fn a_browser_that_is_not_to_remember_forgets() {
    let app = testing::start(app()).await;
    let ada = app.client();
    let signed_in = ada.post("/api/signIn", json!({ "user": "ada", "how": "forget" })).await.ok();
    let renewed = ada.post("/api/renew", json!({})).await.ok();
    for answer in [signed_in, renewed] {
        let cookies = set_cookies(&answer);
        assert!(cookies.len() == 1 && !cookies[0].contains("Max-Age"), "{cookies:?}");
    }
}

#[tokio::test]
async fn values_and_new_sessions_are_bounded() {
    let app = testing::start(app()).settings(|config| {
        config.session.new_per_second = 1;
        config.session.new_burst = 3;
        config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let app = app.await;
    let sign_in = async |client: &testing::TestClient, from: &str, how: &str| {
        client.post("/api/signIn", json!({ "user": "ada", "how": how })).header("x-forwarded-for", from).await
    };
    let client = app.client();
    let large = sign_in(&client, "10.9.9.1", "large").await.refused("session_too_large");
    assert_eq!((large.status().as_u16(), set_cookies(&large).len()), (413, 0));
    for _ in 0..3 {
        sign_in(&client, "10.9.9.1", "").await.ok();
    }
    let refused = sign_in(&client, "10.9.9.1", "").await.refused("rate_limited");
    assert_eq!((refused.status().as_u16(), refused.header("retry-after")), (429, Some("1")));
    sign_in(&app.client(), "10.9.9.2", "").await.ok();
}

#[tokio::test]
async fn a_user_ends_their_other_sessions() {
    let app = testing::start(app()).await;
    let clients: Vec<_> = (0..3).map(|_| app.client()).collect();
    for client in &clients {
        sign_in_as(client, "ada").await;
    }
    let bob = app.client();
    sign_in_as(&bob, "bob").await;
    app.client().post("/api/endOthers", json!({})).await.refused("unauthenticated");
    assert_eq!(clients[1].get("/api/mine").await.ok().json()["sessions"], 3);
    assert_eq!(clients[1].post("/api/endOthers", json!({})).await.ok().json()["result"], 2);
    assert_eq!(user_of(&clients[0]).await, json!(null));
    assert_eq!((user_of(&clients[1]).await, user_of(&bob).await), (json!("ada"), json!("bob")));
    assert_eq!(app.node().sessions().end_all("ada").await.unwrap(), 1);
    assert_eq!(app.node().sessions().of("ada").await.unwrap(), []);
    assert_eq!((user_of(&clients[1]).await, user_of(&bob).await), (json!(null), json!("bob")));
}

#[tokio::test]
async fn updates_of_one_session_at_once_lose_none() {
    let app = testing::start(app()).await;
    let ada = app.client();
    sign_in_as(&ada, "ada").await;
    let visits = (0..50).map(|_| {
        let ada = ada.clone();
        async move { ada.post("/api/visit", json!({})).await.ok() }
    });
    futures_util::future::join_all(visits).await;
    assert_eq!(ada.post("/api/visit", json!({})).await.ok().json()["result"], 51);
}

#[tokio::test]
async fn a_sign_in_whose_cookie_has_no_room_leaves_the_session_before_and_the_list() {
    let app = testing::start(app()).await;
    let (ada, guest) = (app.client(), app.client());
    sign_in_as(&ada, "ada").await;
    let listed = app.node().sessions().of("ada").await.unwrap();
    let id = ada.cookie(COOKIE).unwrap();
    for client in [&ada, &guest] {
        let refused = client.post("/api/signIn", json!({ "user": "ada", "how": "crowded" })).await.refused("internal");
        assert_eq!(set_cookies(&refused).len(), 0);
    }
    assert_eq!((user_of(&ada).await, ada.cookie(COOKIE)), (json!("ada"), Some(id)));
    assert_eq!(app.node().sessions().of("ada").await.unwrap(), listed, "neither a session more nor one less");
    assert_eq!(user_of(&guest).await, json!(null));
}

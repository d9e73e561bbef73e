use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;

use super::{Account, app, set_cookies, sign_in, who_am_i};

#[session]
#[derive(Clone)]
struct Other {}

impl SessionData for Other {
    fn user(&self) -> Option<&str> {
        None
    }
}

/// Takes sessions of a type that the application does not have.
#[action(get)]
async fn other(_ctx: Context, _session: Session<Other>, _: NoInput) -> Result<(), ActionError> {
    Ok(())
}

#[tokio::test]
async fn a_session_of_no_or_another_type_ends_the_boot() {
    let check = async |app: App, parts: &[&str]| {
        let refused = testing::start(app).refused().await;
        for part in parts {
            assert!(refused.contains(part), "{refused}");
        }
    };
    let without = App::new("shop").actions(actions![who_am_i]);
    check(without, &["action \"who_am_i\" needs sessions of type", "Account", ".session::<"]).await;
    let wrong = App::new("shop").session::<Account>().actions(actions![other]);
    check(wrong, &["action \"other\" needs sessions of type", "Other", "Account"]).await;
    let two = App::new("shop").session::<Account>().session::<Other>();
    check(two, &["sessions of the types", "Account", "Other", "it can have one"]).await;
}

#[tokio::test]
async fn settings_that_no_browser_would_take_end_the_boot() {
    let refused = testing::start(app()).settings(|config| config.session.same_site = SameSite::None).refused().await;
    assert!(refused.contains("session.same_site") && refused.contains("web.tls_in_front"), "{refused}");
    let short = |config: &mut Config| config.session.absolute = config.session.idle / 2;
    let refused = testing::start(app()).settings(short).refused().await;
    assert!(refused.contains("session.absolute"), "{refused}");
    let without = App::new("plain").actions(actions![super::plain]);
    let _unaffected = testing::start(without).settings(|config| config.session.same_site = SameSite::None).await;
}

#[tokio::test]
async fn over_tls_the_cookie_is_for_the_host_alone_and_the_other_name_is_not_read() {
    let app = App::new("shop").session::<Account>().actions(actions![sign_in, who_am_i]);
    let secure = |config: &mut Config| {
        config.web.tls_in_front = true;
        config.session.same_site = SameSite::None;
        config.cluster.name = "{eu}".to_owned();
    };
    let app = testing::start(app).settings(secure).await;
    let ada = app.client();
    let signed_in = ada.post("/api/signIn", json!({ "user": "ada" })).await.ok();
    let cookies = set_cookies(&signed_in);
    let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
    assert!(cookie.starts_with("__Host-eu-session="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=None; Max-Age=7776000; Secure"), "{cookie}");
    let plain = app.client();
    plain.set_cookie("eu-session", &ada.cookie("__Host-eu-session").unwrap());
    assert_eq!(super::user_of(&plain).await, json!(null));
    assert_eq!(super::user_of(&ada).await, "ada");
}

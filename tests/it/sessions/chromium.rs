//! A sign-in in a real Chromium.

use phalanx::testing;
use serde_json::json;

use super::app;
use crate::browser::Browser;

/// Plants a stale cookie, signs in by one of 200 requests at once, and returns the number that succeeded and the user.
const SCRIPT: &str = r#"
    const done = arguments[0];
    document.cookie = `shop-session=${"x".repeat(43)}; path=/`;
    const signIn = { method: "POST", headers: { "content-type": "application/json" }, body: '{"user":"ada"}' };
    const call = (number) => (number === 100 ? fetch("/api/signIn", signIn) : fetch("/api/whoAmI"));
    Promise.all(Array.from({ length: 200 }, (_, number) => call(number)))
        .then(async (all) => {
            const me = await (await fetch("/api/whoAmI")).json();
            done([all.filter((answer) => answer.ok).length, me.result]);
        })
        .catch((error) => done(String(error)));
"#;

#[tokio::test]
async fn in_a_browser_answers_to_a_stale_cookie_leave_a_sign_in_alone() {
    let app = testing::start(app()).await;
    let browser = Browser::start().await;
    browser.client.goto(&format!("http://{}/api/plain", app.addr())).await.unwrap();
    let result = browser.client.execute_async(SCRIPT, vec![]).await.unwrap();
    assert_eq!(result, json!([200, "ada"]));
    let cookies = browser.client.get_all_cookies().await.unwrap();
    assert!(cookies.iter().any(|cookie| cookie.name() == "shop-session" && cookie.http_only() == Some(true)));
}

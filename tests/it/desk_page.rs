//! The page of the example `desk`.

use phalanx_testkit::Process;
use serde_json::json;

use crate::browser::Browser;
use crate::client::request;

/// A ticket of bob's whose row contains this.
fn ticket(text: &str) -> String {
    format!(r#"//*[@id="tickets"]/li[strong[.="bob"] and contains(., "{text}")]"#)
}

async fn sign_in(browser: &Browser, page: &str, user: &str) {
    browser.client.goto(page).await.unwrap();
    browser.wait_for(r#"//*[@id="sign-in"][not(@hidden)]"#).await;
    browser.submit("#user", user).await; // the password is still missing
    browser.submit("#password", "open sesame").await;
    browser.wait_for(&format!(r#"//*[@id="name"][.="{user}"]"#)).await;
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
}

#[tokio::test]
async fn a_user_sees_a_ticket_closed_and_is_signed_out_from_elsewhere() {
    let node = Process::start("desk", &[]).await;
    let browser = Browser::start().await;
    sign_in(&browser, &format!("http://{}/", node.addr), "bob").await;
    browser.submit("#text", "help & <b>advice</b>").await;
    browser.wait_for(&ticket("help & <b>advice</b>")).await;
    let post = async |cookie: &str, path: &str, body: serde_json::Value| {
        let headers = ["content-type: application/json", &format!("cookie: {cookie}")];
        request(node.addr, &format!("POST {path}"), &headers, body.to_string().as_bytes()).await
    };
    let signed_in = async |user: &str| {
        let answer = post("theme=dark", "/api/signIn", json!({ "user": user, "password": "open sesame" })).await;
        let set = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: desk-session=")).unwrap();
        format!("desk-session={}", set.split(';').next().unwrap())
    };
    let agent = signed_in("ada").await;
    assert_eq!(post(&agent, "/api/agent/tickets/1/close", json!({})).await.status, 200);
    browser.wait_for(&ticket("closed")).await;
    let elsewhere = signed_in("bob").await;
    assert_eq!(post(&elsewhere, "/api/signOutOthers", json!({})).await.status, 200);
    browser.wait_for(r#"//*[@id="error"][.="you were signed out"]"#).await;
    browser.wait_for(r#"//*[@id="sign-in"][not(@hidden)]"#).await;
}

//! The desk with agents and users.

use desk::actions::{Question, SignIn, TicketId, close, open, sign_in, sign_out_others, tickets, who_am_i};
use desk::{DeskSettings, tickets::Ticket};
use phalanx::http::Method;
use phalanx::prelude::*;
use phalanx::serde_json::json;
use phalanx::testing::{self, TestApp, TestClient};

async fn start() -> TestApp {
    let app = testing::start(desk::app());
    let files = app.folder().join("files");
    app.section(DeskSettings { files }).await
}

async fn signed_in(app: &TestApp, user: &str) -> TestClient {
    let client = app.client();
    client
        .call::<sign_in>(SignIn { user: user.into(), password: "open sesame".into() })
        .await
        .expect("the password is right");
    client
}

async fn opened(client: &TestClient, text: &str) -> Ticket {
    client.call::<open>(Question { text: text.into() }).await.expect("a ticket")
}

#[tokio::test]
async fn a_closed_ticket_reaches_all_devices_of_its_user_and_all_agents() {
    let app = start().await;
    let (ada, bob, cy) = (signed_in(&app, "ada").await, signed_in(&app, "bob").await, signed_in(&app, "cy").await);
    let (mut phone, mut laptop) = (bob.socket().await, signed_in(&app, "bob").await.socket().await);
    let (mut agent, mut stranger) = (ada.socket().await, cy.socket().await);
    agent.join("tickets").await;
    let id = opened(&bob, "help").await.id;
    agent
        .expect(json!({ "room": "tickets", "message": { "id": id, "by": "bob", "text": "help", "isOpen": true } }))
        .await;
    ada.call::<close>(TicketId { id }).await.unwrap();
    for socket in [&mut phone, &mut laptop] {
        socket.expect(json!({ "context": "alert", "ticket": { "id": id, "isOpen": false } })).await;
    }
    agent.expect(json!({ "message": { "id": id, "isOpen": false } })).await;
    stranger.refute(json!({ "context": "alert" })).await;
    let listed = async |client: &TestClient| client.call::<tickets>(NoInput::default()).await.unwrap().tickets.len();
    assert_eq!((listed(&ada).await, listed(&bob).await, listed(&cy).await), (1, 1, 0));
}

#[tokio::test]
async fn guests_and_users_have_no_rights_of_agents() {
    let app = start().await;
    let (guest, bob, cy) = (app.client(), signed_in(&app, "bob").await, signed_in(&app, "cy").await);
    let id = opened(&cy, "help").await.id;
    let (path, file) = (format!("/api/agent/tickets/{id}/close"), format!("/api/tickets/{id}/file"));
    guest.get("/api/tickets").await.refused("unauthenticated");
    guest.post(&path, json!({})).await.refused("unauthenticated");
    bob.post(&path, json!({})).await.refused("forbidden");
    bob.get(&file).await.refused("not_found");
    let mut socket = bob.socket().await;
    assert_eq!(socket.call::<close>(TicketId { id }).await.unwrap_err().code, "forbidden");
    let refused = socket.request(json!({ "event": "roomAdd", "room": "tickets" })).await;
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    let mut agent = signed_in(&app, "ada").await.socket().await;
    agent.join("tickets").await;
    let refused = agent.request(json!({ "event": "say", "room": "tickets", "message": { "id": id } })).await;
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
}

#[tokio::test]
async fn a_file_comes_back_as_it_was_sent_under_its_name() {
    let app = start().await;
    let (ada, bob) = (signed_in(&app, "ada").await, signed_in(&app, "bob").await);
    let mut phone = bob.socket().await;
    let id = opened(&bob, "see the log").await.id;
    let path = format!("/api/tickets/{id}/file");
    bob.get(&path).await.refused("not_found");
    let upload = |client: &TestClient| client.request(Method::POST, &path).file("file", "<log>.html", "one\ntwo\n");
    app.client().get("/api/whoAmI").await.refused("unauthenticated");
    upload(&app.client()).await.refused("unauthenticated");
    upload(&bob).await.ok();
    phone.expect(json!({ "ticket": { "id": id, "file": "<log>.html" } })).await;
    let file = ada.get(&path).await.ok();
    assert_eq!(file.text(), "one\ntwo\n");
    assert!(file.header("content-disposition").is_some_and(|it| it.starts_with("attachment; filename=\"_log_.html\"")));
}

#[tokio::test]
async fn a_user_ends_the_sessions_of_other_devices() {
    let app = start().await;
    let (laptop, phone) = (signed_in(&app, "bob").await, signed_in(&app, "bob").await);
    let (mut kept, mut lost) = (laptop.socket().await, phone.socket().await);
    assert_eq!(laptop.call::<sign_out_others>(NoInput::default()).await, Ok(1));
    assert_eq!(lost.closed().await, 4501);
    phone.get("/api/whoAmI").await.refused("unauthenticated");
    assert_eq!(kept.call::<who_am_i>(NoInput::default()).await.unwrap().user, "bob");
    app.clock().advance(15 * DAY);
    laptop.get("/api/whoAmI").await.refused("unauthenticated");
}

#[tokio::test]
async fn passwords_are_not_to_be_guessed() {
    let app = start().await;
    let guess = |user: &str| app.client().post("/api/signIn", json!({ "user": user, "password": "sesame" }));
    for user in ["bob", "nobody"].repeat(5) {
        guess(user).await.refused("unauthenticated");
    }
    guess("bob").await.refused("rate_limited");
}

//! Rate limits by the session and by the user of a call.

use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;

#[session]
#[derive(Clone)]
struct Account {
    user: String,
}

impl SessionData for Account {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }
}

#[input]
struct SignIn {
    user: String,
}

/// Signs in by a name alone.
#[action(post)]
async fn enter(_ctx: Context, session: Session<Account>, input: SignIn) -> Result<(), ActionError> {
    session.start(Account { user: input.user }).await
}

/// Counts by the user, which no guard of it reads.
#[action(get, limit = Limit::named("of_user").per(3, MINUTE).by_user())]
async fn of_user(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Counts by the session.
#[action(get, limit = Limit::named("of_session").per(2, MINUTE).by_session())]
async fn of_session(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

#[tokio::test]
async fn users_and_sessions_are_counted_by_themselves_whatever_their_address() {
    let app = App::new("limited-sessions").session::<Account>().actions(actions![enter, of_user, of_session]);
    let app = testing::start(app).await;
    let (phone, laptop, other, guest) = (app.client(), app.client(), app.client(), app.client());
    for (client, user) in [(&phone, "ada"), (&laptop, "ada"), (&other, "bob")] {
        client.post("/api/enter", json!({ "user": user })).await.ok();
    }
    phone.get("/api/of_user").await.ok();
    laptop.get("/api/of_user").await.ok();
    let mut socket = laptop.socket().await;
    let ask = json!({"event": "action", "params": {"action": "of_user"}});
    assert_eq!(socket.request(ask.clone()).await["result"], 1);
    for client in [&phone, &laptop] {
        assert_eq!(client.get("/api/of_user").await.status(), 429, "three calls of one user on two devices");
    }
    assert_eq!(socket.request(ask).await["error"]["code"], "rate_limited");
    let left = other.get("/api/of_user").await.ok();
    let state = left.header("ratelimit").unwrap_or_default();
    assert!(state.starts_with("\"of_user\";r=2;"), "another user at the same address: {state}");
    assert_eq!(left.header("cache-control"), Some("private, no-cache"), "the call has read the session");
    assert_eq!(guest.get("/api/of_user").await.status(), 200, "a guest counts by the address");

    for client in [&phone, &laptop] {
        for status in [200, 200, 429] {
            assert_eq!(client.get("/api/of_session").await.status(), status, "a session each");
        }
    }
}

//! Rate limits by the session and by the user of a call.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use phalanx::extend::action::{Action, ActionDef};
use phalanx::prelude::*;
use phalanx::testing;
use phalanx_core::answer::{Answer, answering};
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

/// The runs of the actions below.
static RUNS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Definitions by hand, with a limit by the user: of an action that drops its body at once, one that keeps it without reading
/// it, and one
/// that reads it behind a guard, which lets no stranger pass.
fn by_hand() -> [ActionDef; 3] {
    let dropping = ActionDef {
        name: "dropping",
        limits: || vec![Limit::named("dropping").per(2, MINUTE).by_user()],
        run: |_, _| {
            answering(async {
                RUNS[0].fetch_add(1, SeqCst);
                Answer::json(&1)
            })
        },
        ..of_user::DEF
    };
    let keeping = ActionDef {
        name: "keeping",
        limits: || vec![Limit::named("keeping").per(2, MINUTE).by_user()],
        run: |_, body| {
            answering(async move {
                let _body = body;
                RUNS[1].fetch_add(1, SeqCst);
                Answer::json(&1)
            })
        },
        ..of_user::DEF
    };
    let reading = ActionDef {
        name: "reading",
        limits: || vec![Limit::named("reading").per(2, MINUTE).by_user()],
        run: |ctx, body| {
            answering(async move {
                if ctx.caller().headers.get("x-member").is_none() {
                    return Err(ActionError::unauthenticated("sign in first"));
                }
                if let Err(outcome) = body.params(&ctx).await {
                    return outcome;
                }
                RUNS[2].fetch_add(1, SeqCst);
                Answer::json(&1)
            })
        },
        ..of_user::DEF
    };
    [dropping, keeping, reading]
}

#[tokio::test]
async fn an_action_that_is_written_by_hand_is_counted_whether_it_reads_its_body_or_not() {
    let app = App::new("limited-sessions").session::<Account>().actions(actions![enter]).actions(by_hand());
    let app = testing::start(app).await;
    let (stranger, ada, bob) = (app.client(), app.client().with_header("x-member", "yes"), app.client());
    for (client, user) in [(&ada, "ada"), (&bob, "bob")] {
        client.post("/api/enter", json!({ "user": user })).await.ok();
    }
    let runs = |index: usize| RUNS[index].load(SeqCst);
    for status in [200, 200, 429, 429] {
        assert_eq!(ada.get("/api/dropping").await.status(), status);
    }
    assert_eq!(runs(0), 2, "a refused call does not run");
    for status in [200, 200, 429] {
        assert_eq!(ada.get("/api/keeping").await.status(), status);
    }
    assert_eq!(runs(1), 3, "it is counted when it has answered");
    for _ in 0..3 {
        assert_eq!(stranger.get("/api/reading").await.status(), 401);
    }
    for status in [200, 200, 429] {
        assert_eq!(ada.get("/api/reading").await.status(), status);
    }
    assert_eq!(runs(2), 2);
    let left = bob.get("/api/dropping").await.ok();
    assert!(left.header("ratelimit").unwrap_or_default().starts_with("\"dropping\";r=1;"), "{left:?}");
    let mut socket = bob.socket().await;
    for code in [json!(null), json!("rate_limited")] {
        let reply = socket.request(json!({"event": "action", "params": {"action": "dropping"}})).await;
        assert_eq!(reply["error"]["code"], code, "{reply}");
    }
}

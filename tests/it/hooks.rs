//! Hooks: functions that own their arguments, and have a context as actions do.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx::hooks::{Delivery, LeaveCause};
use phalanx::prelude::*;
use phalanx::testing::{self, TestApp};
use serde_json::json;
use tokio::time::timeout;

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

/// The user who is signed in.
struct Me(Arc<Account>);

impl FromContext for Me {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let session: Session<Account> = ctx.guard().await?;
        session.get().map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }

    fn require(requirements: &mut Requirements) {
        Session::<Account>::require(requirements);
    }
}

/// What hooks saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[input]
struct SignIn {
    user: String,
}

#[action(name = "signIn", post)]
async fn sign_in(session: Session<Account>, input: SignIn) -> Result<(), ActionError> {
    session.start(Account { user: input.user }).await
}

#[action(name = "whoAmI")]
async fn who_am_i(me: Me) -> Result<String, ActionError> {
    Ok(me.0.user.clone())
}

#[task]
async fn noop() -> Result<(), ActionError> {
    Ok(())
}

#[action(post)]
async fn enqueue(ctx: Context) -> Result<String, ActionError> {
    ctx.tasks().enqueue::<noop>(NoInput::default()).await?;
    Ok(ctx.id().to_string())
}

async fn signed_in_alone(ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    let me: Me = ctx.guard().await?;
    let renewed = ctx.guard::<Session<Account>>().await?.start(Account { user: "mallory".into() }).await;
    assert_eq!(renewed.unwrap_err().code(), "session_needs_http");
    assert_eq!((ctx.name(), ctx.version(), ctx.caller().connection.is_none()), ("before_connect", 1, true));
    assert_eq!(ctx.caller().remote, Some(connecting.remote()));
    assert!(!connecting.fingerprint().is_empty() && connecting.headers().contains_key("upgrade"));
    connecting.set("user", &*me.0.user)?;
    assert_eq!(connecting.get("user"), Some("ada".into()));
    ctx.state::<Kept>()?.0.lock().unwrap().push(connecting);
    Ok(())
}

/// The clients that hooks have decided on.
#[derive(Default)]
struct Kept(Mutex<Vec<Connecting>>);

async fn note_join(joining: Joining) -> Result<(), ActionError> {
    let me: Me = joining.context().guard().await?;
    let id = joining.connection().id();
    assert_eq!(joining.context().connection().map(Connection::id), Some(id));
    joining.context().state::<Seen>()?.add(format!("{} joins {}", me.0.user, joining.room()));
    Ok(())
}

async fn note_leave(left: LeftRoom) {
    let me: Option<Me> = left.context().guard().await.unwrap();
    assert_eq!(left.connection().map(Connection::id), Some(left.id()));
    assert!(matches!(left.cause(), LeaveCause::Requested | LeaveCause::Closed));
    let user = me.map_or("a guest".into(), |me| me.0.user.clone());
    left.context().state::<Seen>().unwrap().add(format!("{user} has left {}", left.room()));
}

async fn sign(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    let me: Option<Me> = publishing.context().guard().await?;
    let by = me.map_or("the server".into(), |me| me.0.user.clone());
    assert_eq!(publishing.connection().is_none(), by == "the server");
    let text: String = publishing.message().read()?;
    Ok(Some(publishing.into_message().with_message(&format!("{text}, by {by}"))?))
}

async fn note_job(ctx: Context, job: JobDraft) -> Result<(), ActionError> {
    ctx.state::<Seen>()?.add(format!("{} in {}", job.task(), ctx.id()));
    Ok(())
}

async fn members_alone() -> (TestApp, Seen) {
    let seen = Seen::default();
    let app = App::new("hooks")
        .session::<Account>()
        .actions(actions![sign_in, who_am_i, enqueue])
        .tasks(tasks![noop])
        .state(seen.clone())
        .state(Kept::default())
        .before_connect(signed_in_alone)
        .before_join(note_join)
        .after_leave(note_leave)
        .before_publish(sign)
        .before_enqueue(note_job)
        .configure(|config| config.rooms.start = vec!["lobby".into()]);
    (testing::start(app).await, seen)
}

#[tokio::test]
async fn guards_state_and_sessions_work_in_hooks_as_in_actions() {
    let (app, seen) = members_alone().await;
    let refused = app.client().socket().refused().await.refused("unauthenticated");
    assert_eq!(refused.status(), 401);
    let ada = app.client();
    ada.call::<sign_in>(SignIn { user: "ada".into() }).await.unwrap();
    let mut socket = ada.socket().await;
    assert_eq!(socket.call::<who_am_i>(NoInput::default()).await.unwrap(), "ada");
    socket.join("lobby").await;
    socket.say("lobby", "hello").await;
    socket.expect(json!({ "message": "hello, by ada" })).await;
    app.node().rooms().say("lobby", "welcome").await.unwrap();
    socket.expect(json!({ "message": "welcome, by the server" })).await;
    socket.leave("lobby").await;
    assert_eq!(seen.take(), ["ada joins lobby", "ada has left lobby"]);
    let request = ada.call::<enqueue>(NoInput::default()).await.unwrap();
    assert_eq!(seen.take(), [format!("noop in {request}")]);
}

/// Decides by the session, which ends meanwhile if the client wants that.
async fn end_meanwhile(ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    let me: Me = ctx.guard().await?;
    connecting.set("user", &*me.0.user)?;
    if connecting.query().get_str("end").is_some() {
        ctx.node().sessions().end_all(&me.0.user).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_session_that_ends_while_a_hook_decides_by_it_opens_no_socket() {
    let app = App::new("hooks").session::<Account>().actions(actions![sign_in]).before_connect(end_meanwhile);
    let app = testing::start(app).await;
    let ada = app.client();
    ada.call::<sign_in>(SignIn { user: "ada".into() }).await.unwrap();
    let _socket = ada.socket().await;
    let refused = ada.socket().query("end=1").refused().await.refused("session_ended");
    assert_eq!(refused.status(), 401);
}

#[tokio::test]
async fn a_hook_that_ends_the_session_closes_its_own_socket_after_the_reply() {
    async fn end(ctx: &Context) {
        ctx.guard::<Session<Account>>().await.unwrap().end().await.unwrap();
    }
    let soon = Duration::from_secs(10); // the next look at sessions comes later
    let app = App::new("hooks").session::<Account>().actions(actions![sign_in]);
    let of_join = app.before_join(async |joining: Joining| {
        end(joining.context()).await;
        Ok(())
    });
    let app = testing::start(of_join).settings(|config| config.rooms.start = vec!["lobby".into()]).await;
    let ada = app.client();
    ada.call::<sign_in>(SignIn { user: "ada".into() }).await.unwrap();
    let mut socket = ada.socket().await;
    socket.join("lobby").await;
    assert_eq!(timeout(soon, socket.closed()).await, Ok(4501));
    let app = App::new("hooks").session::<Account>().actions(actions![sign_in]);
    let app = testing::start(app.after_connect(async |ctx: Context, _: Connection| end(&ctx).await)).await;
    let bob = app.client();
    bob.call::<sign_in>(SignIn { user: "bob".into() }).await.unwrap();
    assert_eq!(timeout(soon, bob.socket().await.closed()).await, Ok(4501));
}

#[tokio::test]
async fn a_hook_that_does_not_end_refuses_at_its_deadline_also_where_its_caller_has_none() {
    let app = App::new("hooks").before_leave(async |_: Leaving| std::future::pending().await);
    let settings = |config: &mut phalanx::config::Config| {
        config.rooms.start = vec!["lobby".into()];
        config.general.action_deadline = Duration::from_millis(200);
    };
    let app = testing::start(app).settings(settings).await;
    let mut socket = app.client().socket().await;
    socket.join("lobby").await;
    let connection = app.node().connections().all().remove(0);
    let leave = app.run(|node| async move { node.rooms().leave(&connection, "lobby").await });
    let refused = timeout(Duration::from_secs(20), leave).await.expect("its deadline ends it").unwrap_err();
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::Timeout, "the before_leave hooks did not end in time"));
}

#[tokio::test]
async fn what_a_hook_changes_later_has_no_effect() {
    let (app, _) = members_alone().await;
    let ada = app.client();
    ada.call::<sign_in>(SignIn { user: "ada".into() }).await.unwrap();
    let _socket = ada.socket().await;
    let kept = app.node().state::<Kept>().unwrap().0.lock().unwrap().remove(0);
    assert_eq!(kept.get("user"), None, "the decision was taken");
    assert_eq!(kept.set("user", "bob").unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    let connection = app.node().connections().all().remove(0);
    assert_eq!(connection.get("user"), Some("ada".into()));
}

#[tokio::test]
async fn hooks_of_one_kind_run_in_order_on_one_read_of_the_session_until_one_refuses() {
    let seen = Seen::default();
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let step = |name: &'static str| {
        let (seen, sessions) = (seen.clone(), sessions.clone());
        move |joining: Joining| {
            let (seen, sessions) = (seen.clone(), sessions.clone());
            async move {
                let me: Option<Me> = joining.context().guard().await?;
                sessions.lock().unwrap().extend(me.map(|me| me.0));
                seen.add(name);
                ensure!(joining.room() != name, ActionError::forbidden("not here"));
                Ok(())
            }
        }
    };
    let app = App::new("hooks").session::<Account>().actions(actions![sign_in]);
    let app = app.before_join(step("first")).before_join(step("second"));
    let rooms = ["lobby", "first"].map(str::to_owned).to_vec();
    let app = testing::start(app).settings(move |config| config.rooms.start = rooms).await;
    let ada = app.client();
    ada.call::<sign_in>(SignIn { user: "ada".into() }).await.unwrap();
    let mut socket = ada.socket().await;
    socket.join("lobby").await;
    assert_eq!(seen.take(), ["first", "second"]);
    let read: Vec<Arc<Account>> = std::mem::take(&mut sessions.lock().unwrap());
    assert!(Arc::ptr_eq(&read[0], &read[1]), "they share what was read");
    let refused = socket.request(json!({ "event": "roomAdd", "room": "first" })).await;
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    assert_eq!(seen.take(), ["first"]);
}

/// A function that is no `async fn`.
fn no_swearing(publishing: Publishing) -> impl Future<Output = Result<Option<RoomMessage>, ActionError>> + Send {
    let message = publishing.into_message();
    assert_ne!(message.message.get(), "\"panic\"", "on purpose, before there is a future");
    ready(Ok(Some(message)))
}

#[tokio::test]
async fn functions_closures_and_async_closures_are_hooks() {
    let seen = Seen::default();
    let of_leave = seen.clone();
    let app = App::new("hooks")
        .before_connect(async |_: Context, connecting: Connecting| connecting.set("name", "ada").map(drop))
        .after_connect(|_, connection| async move {
            connection.send(&json!({ "hello": connection.get("name") })).unwrap();
        })
        .before_join(|_| ready(Ok(())))
        .before_leave(async |leaving: Leaving| {
            ensure!(leaving.room() != "hotel", ActionError::forbidden("you can never leave"));
            Ok(())
        })
        .after_leave(move |left| {
            of_leave.add(left.room());
            ready(())
        })
        .before_publish(no_swearing)
        .before_deliver(|delivering| match delivering.connection().get("name") {
            Some(name) if name == "ada" => Delivery::Unchanged,
            _ => Delivery::Drop,
        });
    let rooms = ["lobby", "hotel"].map(str::to_owned).to_vec();
    let app = testing::start(app).settings(move |config| config.rooms.start = rooms).await;
    let mut socket = app.client().socket().await;
    socket.expect(json!({ "hello": "ada" })).await;
    for room in ["lobby", "hotel"] {
        socket.join(room).await;
    }
    socket.say("lobby", "hello").await;
    socket.expect(json!({ "message": "hello" })).await;
    let refused = socket.request(json!({ "event": "say", "room": "lobby", "message": "panic" })).await;
    assert_eq!(refused["error"]["code"], "internal", "{refused}");
    assert_eq!(app.take_panics().len(), 1);
    let refused = socket.request(json!({ "event": "roomLeave", "room": "hotel" })).await;
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    socket.leave("lobby").await;
    assert_eq!(seen.take(), ["lobby"]);
}

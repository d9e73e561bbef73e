//! Tags of connections over real sockets, as an application uses them.

use std::future::ready;
use std::sync::{Arc, Mutex};

use phalanx::TagList;
use phalanx::prelude::*;
use phalanx::testing::{self, TestApp, TestSocket};
use phalanx_testkit::Redis;
use serde_json::json;

#[input]
#[derive(Clone)]
struct Ticket {
    id: u32,
}

#[output]
#[derive(Debug, PartialEq)]
struct Followers {
    count: usize,
    ids: Vec<String>,
    missing: Vec<String>,
}

fn tag_of(ticket: &Ticket) -> String {
    format!("ticket:{}", ticket.id)
}

/// The client gets news of a ticket from now on.
#[action]
async fn follow(_ctx: Context, connection: Connection, input: Ticket) -> Result<(), ActionError> {
    connection.tag(&tag_of(&input)).await
}

/// The client gets no more news of a ticket.
#[action]
async fn unfollow(_ctx: Context, connection: Connection, input: Ticket) -> Result<bool, ActionError> {
    Ok(connection.untag(&tag_of(&input)))
}

/// Closes a ticket, and informs those who follow it.
#[action(name = "closeTicket", post)]
async fn close_ticket(ctx: Context, input: Ticket) -> Result<(), ActionError> {
    ctx.connections().tagged(&tag_of(&input)).send(&json!({ "context": "ticket", "closed": input.id })).await
}

/// Those who follow a ticket.
#[action(get)]
async fn followers(ctx: Context, input: Ticket) -> Result<Followers, ActionError> {
    let TagList { ids, count, missing, .. } = ctx.connections().tagged(&tag_of(&input)).list().await?;
    Ok(Followers { count, ids: ids.iter().map(ToString::to_string).collect(), missing })
}

/// Closes the connections of all who follow a ticket.
#[action(name = "expelFollowers", post)]
async fn expel_followers(ctx: Context, input: Ticket) -> Result<usize, ActionError> {
    Ok(ctx.connections().tagged(&tag_of(&input)).close(CloseReason::NotAllowed).await?.count)
}

/// Gives as many tags as are wanted.
#[action(name = "manyTags")]
async fn many_tags(_ctx: Context, connection: Connection, input: Ticket) -> Result<(), ActionError> {
    for number in 0..input.id {
        connection.tag(&format!("t{number}")).await?;
    }
    Ok(())
}

/// Gives the tags that the client names.
async fn tags_of_query(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    let tags = connecting.query().get_str("tags");
    tags.iter().flat_map(|tags| tags.split(',')).for_each(|tag| connecting.tag(tag));
    Ok(())
}

/// Does not return.
#[remote(deadline = "100ms")]
async fn dawdle(_ctx: Context, _connection: Connection, _: NoInput) -> Result<(), ActionError> {
    std::future::pending().await
}

/// Runs the method that does not return on the followers of a ticket, with more patience than it has.
#[action(name = "waitForFollowers", post, deadline = "0")]
async fn wait_for_followers(ctx: Context, input: Ticket) -> Result<usize, ActionError> {
    let followers = ctx.connections().tagged(&tag_of(&input)).within(10 * MINUTE);
    Ok(followers.apply("dawdle", json!({})).await?.failed)
}

/// Records the hooks of connections.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<&'static str>>>);

impl Recorder {
    fn add_to(&self, app: App) -> App {
        let (created, destroyed) = (self.clone(), self.clone());
        app.after_connect(move |_, _| {
            created.0.lock().unwrap().push("created");
            ready(())
        })
        .after_disconnect(move |_, _, _| {
            destroyed.0.lock().unwrap().push("destroyed");
            ready(())
        })
    }
}

fn app() -> App {
    App::new("desk")
        .remotes(remotes![dawdle])
        .actions(actions![follow, unfollow, close_ticket, followers, expel_followers, many_tags, wait_for_followers])
        .before_connect(tags_of_query)
}

const TICKET: Ticket = Ticket { id: 7 };

async fn check_a_desk(here: &TestApp, there: &TestApp) {
    let (mut ada, mut bob, mut cy): (TestSocket, TestSocket, TestSocket) =
        (here.client().socket().await, there.client().socket().await, there.client().socket().await);
    for socket in [&mut ada, &mut bob] {
        socket.call::<follow>(TICKET).await.unwrap();
    }
    cy.call::<follow>(Ticket { id: 8 }).await.unwrap();
    for app in [here, there] {
        app.client().call::<close_ticket>(TICKET).await.unwrap();
        for socket in [&mut ada, &mut bob] {
            socket.expect(json!({ "context": "ticket", "closed": 7 })).await;
        }
        let mut listed = app.client().call::<followers>(TICKET).await.unwrap();
        listed.ids.sort();
        let mut ids = vec![ada.id().to_owned(), bob.id().to_owned()];
        ids.sort();
        assert_eq!(listed, Followers { count: 2, ids, missing: vec![] });
    }
    cy.refute(json!({ "context": "ticket" })).await;
    assert!(ada.call::<unfollow>(TICKET).await.unwrap());
    there.client().call::<close_ticket>(TICKET).await.unwrap();
    bob.expect(json!({ "closed": 7 })).await;
    ada.refute(json!({ "closed": 7 })).await;
    assert_eq!(here.client().call::<expel_followers>(TICKET).await.unwrap(), 1);
    assert_eq!(bob.closed().await, 4501);
    testing::until("one that is closed has no tags", async || {
        here.client().call::<followers>(TICKET).await.unwrap().count == 0
    })
    .await;
    ada.refute(json!({ "closed": 7 })).await;
}

#[tokio::test]
async fn a_method_on_a_tag_ends_by_its_own_deadline() {
    let app = testing::start(app()).await;
    let mut ada = app.client().socket().await;
    ada.call::<follow>(TICKET).await.unwrap();
    let client = app.client();
    let waiting = client.call::<wait_for_followers>(TICKET);
    let failed = tokio::time::timeout(MINUTE, waiting).await.expect("in 100 ms, not in 10 minutes");
    assert_eq!(failed.unwrap(), 1);
}

#[tokio::test]
async fn those_with_a_tag_get_its_messages_on_one_node() {
    let app = testing::start(app()).await;
    check_a_desk(&app, &app).await;
}

#[tokio::test]
async fn those_with_a_tag_get_its_messages_on_two_nodes() {
    let redis = Redis::start().await;
    let (here, there) = testing::two(app, format!("redis://{}", redis.addr())).await;
    check_a_desk(&here, &there).await;
}

#[tokio::test]
async fn too_many_tags_are_one_error_for_the_client() {
    let app = testing::start(app()).settings(|config| config.websocket.max_tags = 3).await;
    let mut socket = app.client().socket().await;
    socket.call::<many_tags>(Ticket { id: 3 }).await.unwrap();
    let reply = socket.request(json!({ "event": "action", "params": { "action": "manyTags", "id": 4 } })).await;
    assert_eq!(reply["error"]["code"], "too_many_tags");
    let response = app.client().get("/api/followers?id=1").await.ok().json();
    assert_eq!(response["count"], 0);
}

#[tokio::test]
async fn hooks_do_not_learn_of_the_end_of_a_connection_whose_upgrade_was_refused() {
    let recorder = Recorder::default();
    let app = testing::start(recorder.add_to(app())).await;
    app.client().socket().query("tags=two%20words").refused().await;
    testing::until("it is gone", async || app.node().connections().count() == 0).await;
    app.client().socket().await.close().await;
    let all = ["created", "destroyed"];
    testing::until("the other one is gone", async || recorder.0.lock().unwrap().len() >= all.len()).await;
    assert_eq!(*recorder.0.lock().unwrap(), all);
}

#[tokio::test]
async fn tags_of_a_connect_hook_stand_before_the_upgrade_is_answered() {
    let redis = Redis::start().await;
    let (here, there) = testing::two(app, format!("redis://{}", redis.addr())).await;
    for _ in 0..10 {
        let mut socket = here.client().socket().query("tags=ticket:7,ticket:8").await;
        there.client().call::<close_ticket>(TICKET).await.unwrap();
        socket.expect(json!({ "context": "ticket", "closed": 7 })).await;
        socket.close().await;
    }
    let refused = here.client().socket().query("tags=ticket:7,two%20words").refused().await;
    assert_eq!(
        (refused.status(), refused.error_code().as_deref()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("invalid_input"))
    );
    let listed = || there.client().call::<followers>(TICKET);
    testing::until("that of a refused upgrade is gone", async || listed().await.unwrap().count == 0).await;
}

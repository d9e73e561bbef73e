//! The chat with two people.

use chat::actions::{Room, Say, SetName, members, say, set_name};
use phalanx::testing;
use serde_json::json;

#[tokio::test]
async fn a_message_reaches_the_members_with_the_name_of_its_sender() {
    let app = testing::start(chat::app()).await;
    let (mut ada, mut bob) = (app.client().socket().await, app.client().socket().await);
    ada.call::<set_name>(SetName { name: "Ada".into() }).await.unwrap();
    for socket in [&mut ada, &mut bob] {
        socket.join("lobby").await;
    }
    ada.say("lobby", "hello").await;
    bob.say("lobby", "who is there?").await;
    for socket in [&mut ada, &mut bob] {
        socket.expect(json!({ "room": "lobby", "message": { "name": "Ada", "text": "hello" } })).await;
        socket.expect(json!({ "message": { "name": "someone", "text": "who is there?" } })).await;
    }
    bob.leave("lobby").await;
    app.client().call::<say>(Say { room: "lobby".into(), text: "bye".into() }).await.unwrap();
    ada.expect(json!({ "message": { "name": "server", "text": "bye" } })).await;
    bob.refute(json!({ "message": { "text": "bye" } })).await;
}

#[tokio::test]
async fn nobody_speaks_in_the_name_of_another() {
    let app = testing::start(chat::app()).await;
    let (mut ada, mut mallory) = (app.client().socket().await, app.client().socket().await);
    ada.join("lobby").await;
    mallory.join("lobby").await;
    let forged = json!({ "event": "say", "room": "lobby", "message": { "name": "Ada", "text": "hello" } });
    let refused = mallory.request(forged).await;
    assert_eq!(refused["error"]["code"], "invalid_input", "{refused}");
    ada.refute(json!({ "context": "user" })).await;
}

#[tokio::test]
async fn the_members_are_listed_with_their_names() {
    let app = testing::start(chat::app()).await;
    let client = app.client();
    let mut ada = client.socket().await;
    ada.call::<set_name>(SetName { name: "Ada".into() }).await.unwrap();
    ada.join("lobby").await;
    let listed = client.call::<members>(Room { room: "lobby".into() }).await.unwrap();
    assert_eq!((listed.count, &*listed.members[0].id, &*listed.members[0].name), (1, ada.id(), "Ada"));
    let unknown = client.call::<members>(Room { room: "cellar".into() }).await;
    assert_eq!(unknown.map(|_| ()).map_err(|error| error.code), Err("not_found".to_owned()));
}

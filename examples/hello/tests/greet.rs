//! The action over HTTP and over a socket.

use hello::{Greet, greet};
use phalanx::serde_json::json;
use phalanx::testing;

#[tokio::test]
async fn greets_by_name() {
    let app = testing::start(hello::app()).await;
    let client = app.client();
    let greeted = client.get("/api/greet/Ada").await.ok();
    assert_eq!(greeted.json(), json!({ "text": "Hello, Ada!" }));
    let mut socket = client.socket().await;
    let greeting = socket.call::<greet>(Greet { name: "Bob".into() }).await;
    assert_eq!(greeting.map(|greeting| greeting.text), Ok("Hello, Bob!".into()));
}

#[tokio::test]
async fn refuses_a_name_that_is_too_long() {
    let app = testing::start(hello::app()).await;
    let refused = app.client().call::<greet>(Greet { name: "x".repeat(81) }).await;
    let details = refused.map(|_| ()).map_err(|error| error.details[0]["path"].clone());
    assert_eq!(details, Err(json!("name")));
}

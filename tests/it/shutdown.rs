//! A node that stops drops nothing it accepted.

use std::time::Duration;

use crate::app::{settings, start};
use crate::client::{Socket, get};

#[tokio::test]
async fn what_was_accepted_is_answered_and_sockets_are_told() {
    let node = start(settings()).await;
    let addr = node.addr();
    let mut socket = Socket::connect(addr).await;
    socket.send(r#"{"event":"action","messageId":1,"params":{"action":"nap","ms":600}}"#).await;
    socket.ask(r#"{"event":"detailsView","messageId":2}"#).await;
    let http = tokio::spawn(async move { get(addr, "/api/nap?ms=600").await });
    while call_has_not_begun(&node) {
        tokio::task::yield_now().await;
    }
    let stopped = tokio::spawn(node.stop());
    assert_eq!(socket.read().await["ms"], 600);
    assert_eq!(socket.closed().await, 1001);
    assert_eq!(http.await.unwrap().json()["ms"], 600);
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

/// Whether the HTTP call has not begun yet: the socket's task and its action are two, the call is the third.
fn call_has_not_begun(node: &phalanx::Running) -> bool {
    node.node().shutdown().running() < 3
}

#[tokio::test]
async fn what_outlasts_the_grace_is_broken_off() {
    let mut config = settings();
    config.general.grace = Duration::from_millis(200);
    let node = start(config).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.send(r#"{"event":"action","messageId":1,"params":{"action":"nap","ms":1400}}"#).await;
    socket.ask(r#"{"event":"detailsView","messageId":2}"#).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), node.stop()).await.unwrap();
    assert!(stopped.abandoned > 0);
}

//! Nodes of this process, where an application's own code can be looked at from inside.

use std::time::Duration;

use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx::{ApplyError, Running};
use phalanx_testkit::Redis;
use serde_json::json;
use tokio::time::Instant;

use crate::client::Socket;

#[input]
struct Sum {
    a: i64,
    b: i64,
}

/// Adds, but nothing negative.
#[remote]
async fn sum(ctx: Context, input: Sum) -> Result<(String, i64), ActionError> {
    if input.a < 0 || input.b < 0 {
        return Err(ActionError::new(ErrorKind::Conflict, "too_small", "only what is positive"));
    }
    Ok((ctx.node().id().to_owned(), input.a + input.b))
}

/// Never ends.
#[remote(deadline = "200ms")]
async fn never(_ctx: Context) -> Result<(), ActionError> {
    std::future::pending().await
}

/// Panics.
#[remote]
async fn panics(_ctx: Context) -> Result<(), ActionError> {
    panic!("on purpose")
}

/// Clients say who they are.
struct Named;

#[async_trait]
impl ConnectionHook for Named {
    async fn connect(&self, _node: &Node, handshake: &mut Handshake) -> Result<(), ActionError> {
        handshake.id = handshake.query.get_str("name").map(|name| ConnectionId::parse(&name)).transpose()?;
        Ok(())
    }
}

async fn node(redis: &Redis, id: &str) -> Running {
    let mut config = Config::default();
    config.general.id = id.to_owned();
    config.cluster.max_call = phalanx::config::ByteSize::kib(4);
    config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.admin.bind = String::new();
    let app = App::new("tour").remotes(remotes![sum, never, panics]).on_connection(Named);
    app.start_in_cluster(config, &redis.url()).await.unwrap()
}

async fn pair() -> (Redis, Running, Running) {
    let redis = Redis::start().await;
    let (one, other) = tokio::join!(node(&redis, "one"), node(&redis, "other"));
    (redis, one, other)
}

#[tokio::test]
async fn a_node_is_called_by_its_name_and_its_errors_are_its_own() {
    let (_redis, one, other) = pair().await;
    let cluster = one.node().cluster();
    for (name, _) in [("one", &one), ("other", &other)] {
        assert_eq!(cluster.call::<sum>(name, Sum { a: 1, b: 2 }).await.unwrap(), (name.to_owned(), 3));
        let refused = cluster.call::<sum>(name, Sum { a: -1, b: 2 }).await;
        assert!(matches!(&refused, Err(ApplyError::Refused(error)) if error.code() == "too_small"), "{refused:?}");
        let panicked = cluster.call::<panics>(name, NoInput::default()).await;
        assert!(matches!(&panicked, Err(ApplyError::Refused(e)) if e.kind() == ErrorKind::Internal), "{panicked:?}");
        let asked = Instant::now();
        assert!(matches!(cluster.call::<never>(name, NoInput::default()).await, Err(ApplyError::Late)));
        assert!(asked.elapsed() < Duration::from_secs(3), "the method's own deadline counts");
    }
    assert!(matches!(cluster.call::<sum>("nobody", Sum { a: 1, b: 2 }).await, Err(ApplyError::NotFound)));
    let all = cluster.call_all::<sum>(Sum { a: 1, b: 2 }, Duration::from_secs(5)).await.unwrap();
    assert!(all.missing.is_empty());
    for name in ["one", "other"] {
        assert_eq!(all.answers[name].as_ref().unwrap(), &(name.to_owned(), 3));
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_connection_with_a_name_of_its_own_is_found_by_asking_all() {
    let (_redis, one, other) = pair().await;
    let ada = Socket::connect_with(other.addr(), "/ws?name=ada", &[]).await.unwrap();
    assert_eq!(ada.id(), "ada");
    let id = ConnectionId::parse("ada").unwrap();
    let connections = one.node().connections();
    assert_eq!(connections.apply(&id, "set", json!(["k", 1])).await.unwrap(), true);
    assert_eq!(connections.apply(&id, "get", json!(["k"])).await.unwrap(), 1);
    assert!(matches!(connections.apply(&id, "explode", json!(null)).await, Err(ApplyError::UnknownMethod)));
    let nobody = ConnectionId::parse("bob").unwrap();
    assert!(matches!(connections.apply(&nobody, "get", json!(["k"])).await, Err(ApplyError::NotFound)));
    let large = connections.apply(&id, "set", json!(["k", "x".repeat(5000)])).await;
    assert!(matches!(&large, Err(ApplyError::Refused(e)) if e.kind() == ErrorKind::PayloadTooLarge), "{large:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_is_published_is_heard_by_whoever_listens_on_any_node() {
    let (_redis, one, other) = pair().await;
    let mut here = one.node().cluster().subscribe("news").unwrap();
    let mut there = other.node().cluster().subscribe("news").unwrap();
    let mut elsewhere = other.node().cluster().subscribe("gossip").unwrap();
    for number in 0..100 {
        one.node().cluster().publish("news", &number).await.unwrap();
    }
    other.node().cluster().publish("gossip", "psst").await.unwrap();
    for listener in [&mut here, &mut there] {
        for number in 0..100 {
            assert_eq!(listener.next::<u32>().await.unwrap().unwrap(), number);
        }
    }
    assert_eq!(elsewhere.next::<String>().await.unwrap().unwrap(), "psst", "nothing else came before");
    let unnamed = one.node().cluster().publish("no spaces", &1).await.unwrap_err();
    assert_eq!(unnamed.kind(), ErrorKind::InvalidInput);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn observers_hear_of_nodes_that_come_and_go() {
    let redis = Redis::start().await;
    let (heard, mut seen) = tokio::sync::mpsc::channel(100);
    let mut config = Config::default();
    config.general.id = "watcher".to_owned();
    config.web.port = 0;
    config.admin.bind = String::new();
    let watching = App::new("tour").observe(move |event: &phalanx::event::Event| match event {
        phalanx::event::Event::NodeJoined(node) => drop(heard.try_send(format!("+{}", node.id))),
        phalanx::event::Event::NodeLeft(node) => drop(heard.try_send(format!("-{}", node.id))),
        _ => {}
    });
    let watcher = watching.start_in_cluster(config, &redis.url()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), "+watcher");
    let guest = node(&redis, "guest").await;
    assert_eq!(seen.recv().await.unwrap(), "+guest");
    guest.stop().await;
    assert_eq!(seen.recv().await.unwrap(), "-guest");
    watcher.stop().await;
}

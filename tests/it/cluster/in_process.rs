//! Clusters with nodes in this process, whose typed interface (calls, topics, observers) the tests use directly.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use phalanx::config::Config;
use phalanx::event::Event;
use phalanx::prelude::*;
use phalanx::{ApplyError, RunningApp};
use phalanx_testkit::{Proxy, Redis, check_time};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{SOON, until};
use crate::client::Socket;

#[input]
struct Sum {
    a: i64,
    b: i64,
}

/// Adds two numbers, and refuses negative ones.
#[remote]
async fn sum(ctx: Context, input: Sum) -> Result<(String, i64), ActionError> {
    if input.a < 0 || input.b < 0 {
        return Err(ActionError::new(ErrorKind::Conflict, "too_small", "negative numbers are refused"));
    }
    Ok((ctx.node().id().to_owned(), input.a + input.b))
}

/// Never returns.
#[remote(deadline = "200ms")]
async fn never(_ctx: Context) -> Result<(), ActionError> {
    std::future::pending().await
}

static CALLED: Semaphore = Semaphore::const_new(0);
static RELEASED: Semaphore = Semaphore::const_new(0);

/// Returns the node's present generation, once the test wants it.
#[remote]
async fn late_generation(ctx: Context) -> Result<String, ActionError> {
    CALLED.add_permits(1);
    let _ = RELEASED.acquire().await.map_err(ActionError::internal)?;
    Ok(ctx.node().generation().to_string())
}

static STARTED: Semaphore = Semaphore::const_new(0);

/// Signals that it has started, and never returns.
#[remote(deadline = "10m")]
async fn waits(_ctx: Context) -> Result<(), ActionError> {
    STARTED.add_permits(1);
    std::future::pending().await
}

#[input]
struct Length {
    bytes: usize,
}

/// Returns the minutes left until its deadline.
#[remote(deadline = "10m")]
async fn minutes_left(ctx: Context) -> Result<Option<f64>, ActionError> {
    Ok(ctx.deadline().map(|deadline| (deadline - Instant::now()).as_secs_f64() / 60.0))
}

/// Returns a string of `bytes` bytes.
#[remote]
async fn long_reply(_ctx: Context, input: Length) -> Result<String, ActionError> {
    Ok("x".repeat(input.bytes))
}

/// Panics.
#[remote]
async fn panics(_ctx: Context) -> Result<(), ActionError> {
    panic!("on purpose")
}

/// Takes the connection's id from the parameter `name`.
async fn set_id(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    if let Some(name) = connecting.query().get_str("name") {
        connecting.set_id(ConnectionId::parse(&name)?);
    }
    Ok(())
}

fn config(id: &str) -> Config {
    let mut config = super::config(id);
    config.cluster.max_call = phalanx::config::ByteSize::kib(4);
    config
}

pub(super) async fn node(url: &str, id: &str) -> RunningApp {
    let app =
        App::new("tour").remotes(remotes![sum, minutes_left, never, waits, long_reply, panics]).before_connect(set_id);
    app.start_in_cluster(config(id), url).await.unwrap()
}

pub(super) async fn pair() -> (Redis, RunningApp, RunningApp) {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, other) = tokio::join!(node(&url, "one"), node(&url, "other"));
    (redis, one, other)
}

#[tokio::test]
async fn a_node_is_called_by_its_name_and_returns_its_own_errors() {
    let (_redis, one, other) = pair().await;
    let cluster = one.node().cluster();
    for (name, _) in [("one", &one), ("other", &other)] {
        assert_eq!(cluster.call::<sum>(name, Sum { a: 1, b: 2 }).await.unwrap(), (name.to_owned(), 3));
        let refused = cluster.call::<sum>(name, Sum { a: -1, b: 2 }).await;
        assert!(matches!(&refused, Err(ApplyError::Refused(error)) if error.code() == "too_small"), "{refused:?}");
        let panicked = cluster.call::<panics>(name, NoInput::default()).await;
        assert!(matches!(&panicked, Err(ApplyError::Refused(e)) if e.kind() == ErrorKind::Internal), "{panicked:?}");
        let called = Instant::now();
        assert!(matches!(cluster.call::<never>(name, NoInput::default()).await, Err(ApplyError::Late)));
        check_time("a method with a deadline of 200 ms", called.elapsed(), Duration::from_millis(200));
        let left = cluster.call::<minutes_left>(name, NoInput::default()).await.unwrap();
        // Each node knows Redis's clock within a round trip.
        assert!(left.is_some_and(|minutes| (9.0..10.1).contains(&minutes)), "{left:?}");
    }
    assert!(matches!(cluster.call::<sum>("unknown", Sum { a: 1, b: 2 }).await, Err(ApplyError::NotFound)));
    let all = cluster.call_all::<sum>(Sum { a: 1, b: 2 }, Duration::from_secs(5)).await.unwrap();
    assert!(all.missing.is_empty());
    for name in ["one", "other"] {
        assert_eq!(all.replies[name].as_ref().unwrap(), &(name.to_owned(), 3));
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_connection_with_a_custom_id_is_found_by_calling_all_nodes() {
    let (_redis, one, other) = pair().await;
    let ada = Socket::connect_with(other.addr(), "/ws?name=ada", &[]).await.unwrap();
    assert_eq!(ada.id(), "ada");
    let id = ConnectionId::parse("ada").unwrap();
    let connections = one.node().connections();
    assert_eq!(connections.apply(&id, "set", json!(["k", 1])).await.unwrap(), true);
    assert_eq!(connections.apply(&id, "get", json!(["k"])).await.unwrap(), 1);
    assert!(matches!(connections.apply(&id, "explode", json!(null)).await, Err(ApplyError::UnknownMethod)));
    let unknown = ConnectionId::parse("bob").unwrap();
    assert!(matches!(connections.apply(&unknown, "get", json!(["k"])).await, Err(ApplyError::NotFound)));
    let large = connections.apply(&id, "set", json!(["k", "x".repeat(5000)])).await;
    assert!(matches!(&large, Err(ApplyError::Refused(e)) if e.kind() == ErrorKind::PayloadTooLarge), "{large:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn published_messages_reach_the_subscribers_of_every_node() {
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
    assert_eq!(elsewhere.next::<String>().await.unwrap().unwrap(), "psst", "no other topic is received");
    let unnamed = one.node().cluster().publish("no spaces", &1).await.unwrap_err();
    assert_eq!(unnamed.kind(), ErrorKind::InvalidInput);
    one.stop().await;
    other.stop().await;
}

/// Redirects every message to another room.
async fn redirect(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    let mut message = publishing.into_message();
    message.room = "elsewhere".into();
    Ok(Some(message))
}

#[tokio::test]
async fn a_publisher_does_not_wait_for_messages_that_a_hook_sent_to_a_room_without_members_here() {
    let redis = Redis::start().await;
    let mut config = config("one");
    config.rooms.start = vec!["lobby".to_owned()];
    config.rooms.max_undelivered = 1;
    let one = App::new("tour").before_publish(redirect).start_in_cluster(config, &redis.url()).await.unwrap();
    let _publisher = Socket::join(one.addr(), "lobby").await;
    let publisher = one.node().connections().all().remove(0);
    let started = Instant::now();
    for number in 0..20 {
        one.node().rooms().say_from(&publisher, "lobby", &number).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    one.stop().await;
}

#[tokio::test]
async fn messages_too_large_for_the_cluster_are_refused_to_their_sender() {
    let (_redis, one, other) = pair().await;
    let cluster = one.node().cluster();
    let too_large = |error: &ActionError| error.kind() == ErrorKind::PayloadTooLarge;
    assert_eq!(cluster.call::<long_reply>("other", Length { bytes: 1000 }).await.unwrap().len(), 1000);
    let answer = cluster.call::<long_reply>("other", Length { bytes: 5000 }).await;
    assert!(matches!(&answer, Err(ApplyError::Refused(error)) if too_large(error)), "{answer:?}");
    let published = cluster.publish("news", &"x".repeat(5000)).await;
    assert!(too_large(&published.unwrap_err()));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_call_ends_as_soon_as_its_reply_cannot_arrive() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let one = node(&redis.url_through(proxy.addr()), "one").await;
    let other = node(&redis.url(), "other").await;
    let cluster = one.node().cluster();
    let cutting = async {
        STARTED.acquire().await.unwrap().forget();
        proxy.cut();
        Instant::now()
    };
    let (answer, cut) = tokio::join!(cluster.call::<waits>("other", NoInput::default()), cutting);
    assert!(matches!(answer, Err(ApplyError::Late)), "{answer:?}");
    assert!(cut.elapsed() < Duration::from_secs(5), "it took {:?}", cut.elapsed());
    proxy.restore();
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_reaches_subscribers_and_observers_which_may_change_rooms() {
    let redis = Redis::start().await;
    let (events, mut observed) = tokio::sync::mpsc::channel(100);
    let handle = Arc::new(OnceLock::<Node>::new());
    let shared = handle.clone();
    let app = App::new("tour").observe(move |event: &Event| match event {
        Event::BusGap(_) => drop(events.try_send("missed".to_owned())),
        Event::RoomGap(room) => {
            let node = shared.get().unwrap();
            let leaving = async {
                for connection in node.connections().all() {
                    node.rooms().leave(&connection, room).await.unwrap();
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(leaving));
            drop(events.try_send(format!("left {room}")));
        }
        _ => {}
    });
    let mut config = config("one");
    config.rooms.start = vec!["lobby".to_owned()];
    let one = app.start_in_cluster(config, &redis.url()).await.unwrap();
    handle.set(one.node().clone()).unwrap();
    let _member = Socket::join(one.addr(), "lobby").await;
    let mut news = one.node().cluster().subscribe("news").unwrap();
    redis.command("CLIENT KILL TYPE pubsub").await;
    assert_eq!(observed.recv().await.unwrap(), "missed");
    assert_eq!(observed.recv().await.unwrap(), "left lobby");
    let missed = news.next::<u32>().await.unwrap().unwrap_err();
    assert_eq!(missed.kind(), ErrorKind::Unavailable);
    one.node().cluster().publish("news", &1).await.unwrap();
    while news.next::<u32>().await.unwrap().ok() != Some(1) {}
    let node = one.node().clone();
    one.stop().await;
    assert!(news.next::<u32>().await.is_none(), "the node has stopped");
    assert!(node.cluster().subscribe("news").unwrap().next::<u32>().await.is_none());
}

#[tokio::test]
async fn observers_are_notified_of_nodes_that_join_and_leave() {
    let redis = Redis::start().await;
    let (events, mut observed) = tokio::sync::mpsc::channel(100);
    let watching = App::new("tour").observe(move |event: &Event| match event {
        Event::NodeJoined(node) => drop(events.try_send(format!("+{}", node.id))),
        Event::NodeLeft(node) => drop(events.try_send(format!("-{}", node.id))),
        _ => {}
    });
    let watcher = watching.start_in_cluster(config("watcher"), &redis.url()).await.unwrap();
    assert_eq!(observed.recv().await.unwrap(), "+watcher");
    let guest = node(&redis.url(), "guest").await;
    assert_eq!(observed.recv().await.unwrap(), "+guest");
    guest.stop().await;
    assert_eq!(observed.recv().await.unwrap(), "-guest");
    watcher.stop().await;
}

/// Two nodes of one id, one of which takes a new generation between the call and its reply.
#[tokio::test]
async fn nodes_of_one_id_both_reply_also_under_a_new_generation() {
    let redis = Redis::start().await;
    let start = async || {
        App::new("tour")
            .remotes(remotes![late_generation])
            .start_in_cluster(config("same"), &redis.url())
            .await
            .unwrap()
    };
    let (one, other) = (start().await, start().await);
    let first = other.node().generation();
    until("both are listed", SOON, async || one.node().cluster().nodes().await.unwrap().len() == 2).await;
    let calling = async { one.node().cluster().call_all::<late_generation>(NoInput::default(), SOON).await.unwrap() };
    let renaming = async {
        CALLED.acquire_many(2).await.unwrap().forget();
        // As a reaper does.
        redis.command(&format!("ZADD phalanx:tour:reaped 9000000000000000 {first}")).await;
        redis.command(&format!("ZREM phalanx:tour:leases {first}")).await;
        redis.command(&format!("HDEL phalanx:tour:nodes {first}")).await;
        until("it has a new generation", SOON, async || {
            let nodes = one.node().cluster().nodes().await.unwrap();
            nodes.iter().any(|node| node.boot == first && node.generation != first)
        })
        .await;
        RELEASED.add_permits(2);
    };
    let (all, ()) = tokio::join!(calling, renaming);
    assert_eq!(all.missing, [] as [String; 0]);
    let replied: Vec<(&String, &String)> =
        all.replies.iter().map(|(name, reply)| (name, reply.as_ref().unwrap())).collect();
    let mut expected = [
        (format!("same@{}", one.node().generation()), one.node().generation().to_string()),
        (format!("same@{first}"), other.node().generation().to_string()),
    ];
    expected.sort();
    assert_eq!(replied, expected.each_ref().map(|(name, reply)| (name, reply)));
    one.stop().await;
    other.stop().await;
}

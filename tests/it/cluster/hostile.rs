use serde_json::json;

use super::{Cluster, apply, members, until};
use crate::client::{Socket, get};

/// What anybody with access to Redis can write by hand.
#[tokio::test]
async fn rubbish_in_channels_is_dropped_and_counted() {
    let cluster = Cluster::start(2).await;
    let mut socket = Socket::join(cluster.addr(0), "defaultRoom").await;
    let generation = cluster.generation(0).await;
    let channels = ["tour".to_owned(), format!("tour:node:{generation}"), "tour:room:defaultRoom".to_owned()];
    let big = "x".repeat(60_000);
    let messages = ["null", "[]", "{}", "not-json", "\\n", big.as_str()];
    for channel in &channels {
        for message in messages {
            cluster.redis.ask(&format!("PUBLISH {channel} \"{message}\"")).await;
        }
    }
    let expected = format!("{}", channels.len() * messages.len());
    until("they are counted", super::SOON, async || {
        let metrics = String::from_utf8(get(cluster.nodes[0].admin, "/metrics").await.body).unwrap();
        let counted = metrics
            .lines()
            .filter(|line| line.starts_with("phalanx_bus_dropped_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counted.sum::<u64>().to_string() == expected
    })
    .await;
    socket.send(r#"{"event":"say","room":"defaultRoom","message":"still here"}"#).await; // heard before or after its OK
    assert_eq!(socket.next_in("user").await["message"], "still here", "nothing else was heard");
    assert_eq!(apply(cluster.addr(1), &socket.id(), "set", json!(["k", 1])).await.status, 200);
}

#[tokio::test]
async fn rubbish_in_keys_is_an_error_of_the_call_that_meets_it() {
    let cluster = Cluster::start(2).await;
    let mut socket = Socket::join(cluster.addr(0), "otherRoom").await;
    cluster.redis.ask("HSET actionhero:chatRoom:members:otherRoom stranger rubbish").await;
    let listed = get(cluster.addr(1), "/api/rooms/otherRoom").await.json();
    assert!(listed["members"][socket.id()].is_object(), "{listed}");
    cluster.redis.ask("SET actionhero:chatRoom:members:defaultRoom 7").await;
    let refused = socket.ask(r#"{"event":"roomAdd","room":"defaultRoom"}"#).await;
    assert_eq!(refused["error"]["code"], "internal", "{refused}");
    assert_eq!(get(cluster.addr(1), "/api/rooms/defaultRoom").await.status, 500);
    cluster.redis.ask("HSET phalanx:tour:nodes rubbish rubbish").await;
    let nodes = get(cluster.addr(1), "/api/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 2, "{nodes}");
    cluster.redis.ask("SET phalanx:tour:names 7").await;
    assert_eq!(apply(cluster.addr(1), &socket.id(), "set", json!(["k", 1])).await.error_code(), "internal");
    cluster.redis.ask("DEL phalanx:tour:names").await;
    assert_eq!(members(cluster.addr(1), "otherRoom").await, 2);
}

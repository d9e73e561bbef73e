use serde_json::json;

use super::{Cluster, apply, members, until};
use crate::client::{Socket, get};

/// Any client with access to Redis can publish these.
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
            cluster.redis.command(&format!("PUBLISH {channel} \"{message}\"")).await;
        }
    }
    let expected = (channels.len() * messages.len()) as u64;
    until("they are counted", super::SOON, async || dropped(cluster.nodes[0].admin).await == expected).await;
    socket.send(r#"{"event":"say","room":"defaultRoom","message":"still here"}"#).await; // before or after its OK
    assert_eq!(socket.next_in("user").await["message"], "still here", "no other message was delivered");
    assert_eq!(apply(cluster.addr(1), &socket.id(), "set", json!(["k", 1])).await.status, 200);
}

/// A client that reads the messages of nodes can publish them again, to other channels, or altered.
#[tokio::test]
async fn replayed_redirected_and_altered_messages_are_refused() {
    let cluster = Cluster::start(2).await;
    let watch = cluster.redis.watch().await;
    let mut socket = Socket::join(cluster.addr(0), "defaultRoom").await;
    let (room, inbox) = ("tour:room:defaultRoom", format!("tour:node:{}", cluster.generation(0).await));
    let answers = format!("tour:node:{}", cluster.generation(1).await);
    socket.send(r#"{"event":"say","room":"defaultRoom","message":"first"}"#).await;
    assert_eq!(socket.next_in("user").await["message"], "first");
    assert_eq!(apply(cluster.addr(1), &socket.id(), "set", json!(["k", "first"])).await.status, 200);
    until("they are seen", super::SOON, async || watch.on(&answers).len() == 1).await;
    let published = watch.on(room).into_iter().find(|text| text.contains("first")).unwrap();
    let call = watch.on(&inbox).into_iter().find(|text| text.contains("first")).unwrap();
    let without_mac = published.split_once(",\"mac\"").unwrap().0.to_owned() + "}\n{}";
    let long = published.clone() + &" ".repeat(60_000);
    let forged = [
        (room, published.clone()),
        (&inbox, call.clone()),
        (&inbox, published.clone()),
        (room, call.clone()),
        ("tour", call.clone()),
        (room, published.replace("first", "second")),
        (&inbox, call.replace("first", "second")),
        (&inbox, call.replacen("\"seq\":", "\"seq\":9", 1)),
        (room, without_mac),
        (room, long),
    ];
    for (channel, message) in &forged {
        cluster.redis.publish(channel, message).await;
    }
    until("they are counted", super::SOON, async || dropped(cluster.nodes[0].admin).await == forged.len() as u64).await;
    let value = apply(cluster.addr(1), &socket.id(), "get", json!(["k"])).await.json();
    assert_eq!(value["result"], "first", "no forged call ran");
    until("it is seen", super::SOON, async || watch.on(&answers).len() >= 2).await;
    assert_eq!(watch.on(&answers).len(), 2, "no forged call was answered");
    socket.send(r#"{"event":"say","room":"defaultRoom","message":"still here"}"#).await;
    assert_eq!(socket.next_in("user").await["message"], "still here", "no other message was delivered");
}

/// The number of messages that a node dropped, for any reason.
async fn dropped(admin: std::net::SocketAddr) -> u64 {
    let metrics = String::from_utf8(get(admin, "/metrics").await.body).unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("phalanx_bus_dropped_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn rubbish_in_keys_fails_only_the_call_that_reads_it() {
    let cluster = Cluster::start(2).await;
    let mut socket = Socket::join(cluster.addr(0), "otherRoom").await;
    cluster.redis.command("HSET actionhero:chatRoom:members:otherRoom stranger rubbish").await;
    let listed = get(cluster.addr(1), "/api/rooms/otherRoom").await.json();
    assert!(listed["members"][socket.id()].is_object(), "{listed}");
    cluster.redis.command("SET actionhero:chatRoom:members:defaultRoom 7").await;
    let refused = socket.request(r#"{"event":"roomAdd","room":"defaultRoom"}"#).await;
    assert_eq!(refused["error"]["code"], "internal", "{refused}");
    assert_eq!(get(cluster.addr(1), "/api/rooms/defaultRoom").await.status, 500);
    cluster.redis.command("HSET phalanx:tour:nodes rubbish rubbish").await;
    let nodes = get(cluster.addr(1), "/api/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 2, "{nodes}");
    cluster.redis.command("SET phalanx:tour:names 7").await;
    assert_eq!(apply(cluster.addr(1), &socket.id(), "set", json!(["k", 1])).await.error_code(), "internal");
    cluster.redis.command("DEL phalanx:tour:names").await;
    assert_eq!(members(cluster.addr(1), "otherRoom").await, 2);
}

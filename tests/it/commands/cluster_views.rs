//! `routes`, `nodes`, `connections`, `rooms`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_testkit::{Process, Redis, check_time};
use serde_json::json;
use tokio::time::Instant;

use super::{document, fail, print, tour};
use crate::client::{Socket, get};

#[tokio::test]
async fn routes_are_those_that_a_node_serves() {
    let routes = document(&["routes"], &[], "routes").await;
    let routes = routes["routes"].as_array().unwrap();
    let node = Process::start("tour", &[]).await;
    let reads: Vec<&str> = routes
        .iter()
        .filter(|route| route["method"] == "GET")
        .map(|route| route["path"].as_str().unwrap())
        .filter(|path| !path.contains('{'))
        .collect();
    assert!(reads.contains(&"/api/status"), "{routes:?}");
    for path in reads.iter().filter(|path| path.contains("random") || path.contains("status")) {
        assert_eq!(get(node.addr, path).await.status, 200, "{path}");
    }
    let table = print(&["routes"], &[]).await;
    assert_eq!(table.lines().count(), routes.len() + 1, "{table}");
    assert!(table.starts_with("METHOD  PATH"), "{table}");
    let versions: Vec<_> = routes.iter().filter(|route| route["action"] == "randomNumber").collect();
    assert!(versions.iter().any(|route| route["version"] == 2), "{versions:?}");
}

#[tokio::test]
async fn nodes_connections_and_rooms_are_those_of_the_whole_cluster() {
    let redis = Redis::start().await;
    let url = redis.url();
    let title = |title| [("REDIS_URL", url.as_str()), ("PHALANX_TITLE", title)];
    let [one, two] = [Process::start("tour", &title("one")).await, Process::start("tour", &title("two")).await];
    let mut sockets = vec![Socket::join(one.addr, "defaultRoom").await, Socket::join(two.addr, "defaultRoom").await];
    sockets.push(Socket::connect(two.addr).await);
    let environment = title("operator");

    let nodes = document(&["nodes"], &environment, "nodes").await;
    let listed = nodes["nodes"].as_array().unwrap();
    let seen: Vec<_> = listed.iter().map(|node| (&node["id"], &node["connections"], &node["state"])).collect();
    assert_eq!(seen, [(&json!("one"), &json!(1), &json!("ready")), (&json!("two"), &json!(2), &json!("ready"))]);
    let addresses = json!({ "web": two.addr, "admin": two.admin });
    assert_eq!((&listed[1]["addresses"], &listed[1]["pid"]), (&addresses, &json!(two.pid())));
    assert!(listed[0]["startedAt"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{nodes}");
    let table = print(&["nodes"], &environment).await;
    assert!(table.lines().count() == 3 && table.contains(&two.addr.to_string()), "{table}");

    let connections = document(&["connections"], &environment, "connections").await;
    // By age in milliseconds: two may have the same.
    let listed = connections["connections"].as_array().unwrap();
    let keys: Vec<_> =
        listed.iter().map(|it| (it["connectedAt"].as_str().unwrap(), it["id"].as_str().unwrap())).collect();
    assert!(keys.is_sorted(), "{connections}");
    let ids: BTreeSet<_> = keys.iter().map(|(_, id)| (*id).to_owned()).collect();
    assert_eq!(ids, sockets.iter().map(Socket::id).collect(), "{connections}");
    let of_two = document(&["connections", "--node", "two"], &environment, "connections").await;
    assert_eq!((&of_two["count"], &of_two["connections"][0]["node"]), (&json!(2), &json!("two")));
    let in_room = document(&["connections", "--room", "defaultRoom"], &environment, "connections").await;
    assert_eq!((&in_room["count"], &in_room["connections"][1]["rooms"]), (&json!(2), &json!(1)));
    let first = print(&["connections", "--limit", "1"], &environment).await;
    assert!(first.contains(keys[0].1) && first.ends_with("\n1 of 3 connections\n"), "{first}");
    let refused = fail(1, &["connections", "--node", "three"], &environment).await;
    assert_eq!(refused, "error: not_found: the cluster has no node three\n");

    let rooms = document(&["rooms"], &environment, "rooms").await;
    assert_eq!((&rooms["count"], &rooms["rooms"][0]), (&json!(3), &json!({ "room": "defaultRoom", "members": 2 })));
    let rest = document(&["rooms", "--skip", "2"], &environment, "rooms").await;
    assert_eq!(rest, json!({ "count": 3, "rooms": [{ "room": "vip", "members": 0 }] }));
    let table = print(&["rooms", "--limit", "1"], &environment).await;
    assert_eq!(table, "ROOM         MEMBERS\ndefaultRoom  2\n");
    // The commands have left nothing behind.
    assert_eq!(redis.command("HLEN phalanx:tour:nodes").await, ":2\r\n");
}

#[tokio::test]
async fn a_node_or_a_redis_that_does_not_answer_is_named_within_five_seconds() {
    let redis = Redis::start().await;
    let url = redis.url();
    let title = |title| [("REDIS_URL", url.as_str()), ("PHALANX_TITLE", title)];
    let one = Process::start("tour", &title("one")).await;
    let two = Process::start("tour", &title("two")).await;
    let _socket = Socket::connect(one.addr).await;
    two.freeze();
    let operator = title("operator");
    let commands =
        [(&["nodes"][..], "no reply"), (&["connections"], "127.0.0.1:"), (&["nodes", "--json"], "[\"two\"]")];
    // At once: the frozen node is reaped after a while, and is not a node any more.
    let outputs = commands.map(async |(command, shown)| {
        let start = Instant::now();
        let output = tour(command, &operator).await;
        check_time(&format!("{command:?} beside a frozen node"), Duration::from_secs(5), start.elapsed());
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*stderr), (Some(1), "error: no reply in time: two\n"), "{stdout}");
        assert!(stdout.contains(shown), "{stdout}");
    });
    join_all(outputs).await;
    two.thaw();
    redis.freeze();
    for command in ["nodes", "connections", "rooms"] {
        let start = Instant::now();
        let reason = fail(1, &[command], &operator).await;
        check_time(&format!("`{command}` with a frozen Redis"), Duration::from_secs(5), start.elapsed());
        assert!(reason.contains(&redis.addr().to_string()), "{reason}");
    }
    redis.thaw();
}

#[tokio::test]
async fn a_node_without_redis_has_no_cluster_to_look_into() {
    for command in ["nodes", "connections", "rooms"] {
        let reason = fail(1, &[command], &[]).await;
        assert!(reason.lines().count() == 1 && reason.contains("set REDIS_URL"), "{reason}");
    }
    for wrong in [&["connections", "--limit", "0"][..], &["connections", "--limit", "5000"], &["rooms", "--limit", "x"]]
    {
        fail(2, wrong, &[]).await;
    }
}

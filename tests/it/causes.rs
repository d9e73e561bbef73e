//! The cause of an `internal`: shown to a developer on the machine of the node, and to no other client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use phalanx_testkit::Process;
use serde_json::Value;

use crate::client::{Socket, get, raw, request};
use crate::shares::own_address;

const CAUSE: &str = "panicked: the tour panics on purpose";

async fn over_http(addr: SocketAddr, headers: &[&str]) -> Value {
    let answer = request(addr, "GET /api/panicTest", headers, b"").await;
    assert_eq!((answer.status, answer.error_code().as_str()), (500, "internal"));
    answer.json()["error"]["cause"].clone()
}

async fn over_a_socket(addr: SocketAddr, headers: &[(&'static str, &str)]) -> Value {
    let mut socket = Socket::connect_with(addr, "/ws", headers).await.ok().unwrap();
    let reply = socket.request(r#"{"event":"action","params":{"action":"panicTest"}}"#).await;
    assert_eq!(reply["error"]["code"], "internal", "{reply}");
    reply["error"]["cause"].clone()
}

#[tokio::test]
async fn a_developer_on_the_machine_gets_the_cause_and_no_client_behind_a_proxy_does() {
    let node = Process::start("tour", &[]).await;
    assert_eq!(over_http(node.addr, &[]).await, CAUSE);
    assert_eq!(over_a_socket(node.addr, &[]).await, CAUSE);
    for proxy in ["x-forwarded-for: 127.0.0.1", "forwarded: for=127.0.0.1", "x-real-ip: 127.0.0.1", "via: 1.1 a"] {
        assert_eq!(over_http(node.addr, &[proxy]).await, Value::Null, "{proxy}");
        let header = proxy.split_once(": ").unwrap();
        assert_eq!(over_a_socket(node.addr, &[header]).await, Value::Null, "{proxy}");
    }
    for (host, cause) in [("localhost:8080", CAUSE.into()), ("[::1]", CAUSE.into()), ("site.example", Value::Null)] {
        let head = format!("GET /api/panicTest HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = raw(node.addr, head.as_bytes()).await.json();
        assert_eq!(answer["error"]["cause"], cause, "a name that leads here: {host}");
    }
    let refused = get(node.addr, "/api/httpOnly?apiVersion=9").await.json();
    assert_eq!(refused["error"].get("cause"), None, "other errors have none");
}

#[tokio::test]
async fn a_client_of_another_address_gets_no_cause() {
    let Some(own) = own_address("0.0.0.0:0", "203.0.113.1:9") else { return };
    let node = Process::start("tour", &[("BIND", "0.0.0.0")]).await;
    let at = |ip: IpAddr| SocketAddr::new(ip, node.addr.port());
    assert_eq!(over_http(at(own), &[]).await, Value::Null);
    assert_eq!(over_a_socket(at(own), &[]).await, Value::Null);
    assert_eq!(over_http(at(Ipv4Addr::LOCALHOST.into()), &[]).await, CAUSE);
}

#[tokio::test]
async fn no_client_gets_a_cause_in_another_environment_or_of_a_trusted_proxy() {
    let trusted = ("PHALANX__WEB__TRUSTED_PROXIES", "127.0.0.0/8");
    for environment in [("PHALANX_ENV", "production"), ("PHALANX_ENV", "test"), ("PHALANX_ENV", "staging"), trusted] {
        let node = Process::start("tour", &[environment]).await;
        assert_eq!(over_http(node.addr, &[]).await, Value::Null, "{environment:?}");
        assert_eq!(over_a_socket(node.addr, &[]).await, Value::Null, "{environment:?}");
    }
}

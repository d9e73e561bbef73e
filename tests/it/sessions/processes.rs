//! Sessions on nodes that are processes of their own. `ROUNDS` sets how often: `just sessions` sets full numbers.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx::extend::backend::SessionKey;
use phalanx_testkit::{Process, Proxy, Redis, check_time, print};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::rounds;
use crate::client::{Socket, request};
use crate::cluster::until;

/// The documented time within which a sign-out closes the sockets of other nodes.
const CLOSED: Duration = Duration::from_secs(1);

const SOON: Duration = Duration::from_secs(30);

async fn start(url: &str, title: &str) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title),
        ("PHALANX__LIMITS__SIGN_IN", "0"),
        ("PHALANX__SESSION__NEW_PER_SECOND", "0"),
        ("PHALANX__WEBSOCKET__UPGRADES_PER_SECOND", "0"),
    ];
    Process::start("tour", &environment).await
}

/// Signs in, and returns the cookie.
async fn sign_in(addr: SocketAddr) -> String {
    let body = json!({ "user": "ada", "password": "open sesame" }).to_string();
    let signed_in = request(addr, "POST /api/signIn", &["content-type: application/json"], body.as_bytes()).await;
    let cookie = signed_in.header("set-cookie").unwrap_or_else(|| panic!("{}: {}", signed_in.status, signed_in.json()));
    cookie.split(';').next().unwrap().to_owned()
}

async fn socket(addr: SocketAddr, cookie: &str) -> Socket {
    Socket::connect_with(addr, "/ws", &[("cookie", cookie)]).await.unwrap_or_else(|refused| panic!("{refused:?}"))
}

#[tokio::test]
async fn a_sign_out_closes_the_sockets_of_two_other_nodes_in_time() {
    let (redis, rounds) = (Redis::start().await, rounds(5));
    let url = redis.url();
    let (a, b, c) = tokio::join!(start(&url, "a"), start(&url, "b"), start(&url, "c"));
    let mut longest = Duration::ZERO;
    for _ in 0..rounds {
        let cookie = sign_in(a.addr).await;
        let mut sockets = join_all([b.addr, b.addr, c.addr].map(|addr| socket(addr, &cookie))).await;
        let start = Instant::now();
        let signed_out = request(a.addr, "POST /api/signOut", &[&format!("cookie: {cookie}")], b"").await;
        assert_eq!(signed_out.status, 200);
        assert_eq!(join_all(sockets.iter_mut().map(Socket::closed)).await, [4501; 3]);
        longest = longest.max(start.elapsed());
    }
    check_time(&format!("{rounds} sign-outs close three sockets on two other nodes, at most"), longest, CLOSED);
}

/// The way of the node that dies to Redis is slow, so that it dies before and after each message of the end.
#[tokio::test]
async fn a_node_that_is_killed_while_it_ends_a_session_has_closed_its_sockets_or_not_ended_it() {
    const DELAY: Duration = Duration::from_millis(20);
    // The session is read until 40 ms have passed; the end is at Redis after 60, and answered after 80.
    const KILLED_AFTER: [u64; 8] = [80, 65, 90, 50, 100, 70, 110, 60];
    let (redis, rounds) = (Redis::start().await, rounds(4));
    // By its user Redis knows the connections of the node that dies from those that the other opens meanwhile.
    redis.command("ACL SETUSER dying on >secret ~* &* +@all").await;
    let is_connected = async || redis.command("CLIENT LIST").await.contains(" user=dying ");
    let other = start(&redis.url(), "other").await;
    let cookie = sign_in(other.addr).await;
    request(other.addr, "POST /api/signOut", &[&format!("cookie: {cookie}")], b"").await; // so Redis has the scripts
    let mut gone = 0;
    for round in 0..rounds {
        let proxy = Proxy::before(redis.addr()).await;
        let dying = start(&format!("redis://dying:secret@{}", proxy.addr()), "dying").await;
        assert!(is_connected().await);
        proxy.delay(DELAY);
        let cookie = sign_in(other.addr).await;
        let id = cookie.split_once('=').unwrap().1;
        let exists = format!("EXISTS phalanx:tour:session:{}", SessionKey::of(id).to_hex());
        let mut sockets = join_all([(); 2].map(|()| socket(other.addr, &cookie))).await;
        let mut ending = TcpStream::connect(dying.addr).await.unwrap();
        let head = format!(
            "POST /api/signOut HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\ncontent-length: 0\r\n\r\n",
            dying.addr
        );
        ending.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(KILLED_AFTER[round % KILLED_AFTER.len()])).await; // the time of the fault
        drop(dying); // by SIGKILL
        drop(proxy);
        until("all that it sent is done or lost", SOON, async || !is_connected().await).await;
        if redis.command(&exists).await == ":0\r\n" {
            gone += 1;
            let closed = timeout(Duration::from_secs(2), join_all(sockets.iter_mut().map(Socket::closed))).await;
            assert_eq!(closed.unwrap_or_default(), [4501; 2], "round {round}: it has ended");
        } else {
            let who_am_i = json!({ "event": "action", "messageId": "m", "params": { "action": "whoAmI" } });
            for socket in &mut sockets {
                let answer = socket.request_by_id(&who_am_i).await;
                assert_eq!(answer["user"], "ada", "round {round}: {answer}");
            }
            request(other.addr, "POST /api/signOut", &[&format!("cookie: {cookie}")], b"").await;
            assert_eq!(join_all(sockets.iter_mut().map(Socket::closed)).await, [4501; 2], "round {round}");
        }
    }
    print(format_args!(
        "{rounds} nodes were killed while they ended a session: {gone} had ended it, and closed its sockets"
    ));
}

//! Asks the nodes for the members of rooms all the time, and records what they list.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::history::{Event, Recorder};

/// How often each room is listed, by one node after the other.
const PAUSE: Duration = Duration::from_millis(100);

/// A node that does not answer within this time is passed over.
const PATIENCE: Duration = Duration::from_millis(500);

/// Records the members of a room until it is dropped.
pub(crate) async fn watch_list(room: String, addrs: Vec<watch::Receiver<SocketAddr>>, recorder: Arc<Recorder>) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for node in (0..addrs.len()).cycle() {
        ticks.tick().await;
        let (addr, asked) = (*addrs[node].borrow(), recorder.now());
        if let Ok(Some(members)) = timeout(PATIENCE, list(addr, &room)).await {
            recorder.record(Event::Watched { node, room: room.clone(), asked, members });
        }
    }
}

/// The members of a room with the times at which they joined; `None` if the node does not list it.
async fn list(addr: SocketAddr, room: &str) -> Option<BTreeMap<String, u64>> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let request = format!("GET /api/rooms/{room} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let view: Value = head.starts_with("HTTP/1.1 200 ").then(|| serde_json::from_str(body).ok())??;
    let members = view["members"].as_object()?.iter();
    members.map(|(id, member)| Some((id.clone(), member["joinedAt"].as_u64()?))).collect()
}

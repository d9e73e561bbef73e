//! The connections through a proxy, by what a node uses them for, so that a fault can hit one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;

/// The connections of a node to Redis, by the first request that only one kind of them sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// Neither of the others: leases, rooms, the cache, locks.
    Commands,
    /// It publishes, after it was announced.
    Publishing,
    /// It has subscribed.
    Subscribing,
}

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies and messages.
    ToClient,
}

/// Connections of a flow, or of all flows, with a lower number than this.
#[derive(Clone, Copy, Debug)]
struct Selection {
    flow: Option<Flow>,
    below: usize,
}

/// The faults of single flows, and the number of connections so far.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    opened: AtomicUsize,
    held: watch::Sender<Vec<(Selection, Direction)>>,
    closed: watch::Sender<Option<Selection>>,
}

impl Connections {
    pub(crate) fn opened(self: &Arc<Self>) -> OpenConnection {
        let number = self.opened.fetch_add(1, Relaxed);
        OpenConnection {
            number,
            flow: Arc::default(),
            is_late: Arc::default(),
            is_slow: Arc::default(),
            all: self.clone(),
        }
    }

    fn select(&self, flow: Option<Flow>) -> Selection {
        Selection { flow, below: self.opened.load(Relaxed) }
    }

    pub(crate) fn hold(&self, flow: Option<Flow>, direction: Direction) {
        let selection = self.select(flow);
        self.held.send_modify(|held| held.push((selection, direction)));
    }

    pub(crate) fn release(&self) {
        self.held.send_modify(Vec::clear);
    }

    pub(crate) fn close(&self, flow: Flow) {
        self.closed.send_replace(Some(self.select(Some(flow))));
    }
}

/// A connection between a client and the server.
#[derive(Clone, Debug)]
pub(crate) struct OpenConnection {
    number: usize,
    flow: Arc<AtomicU8>,
    /// Whether its client has gone while its requests were held.
    is_late: Arc<AtomicBool>,
    /// Whether its replies are delayed.
    is_slow: Arc<AtomicBool>,
    all: Arc<Connections>,
}

impl OpenConnection {
    /// Most bytes that are held for one direction of a connection; the sender then waits.
    const HELD: usize = 4 * 1024 * 1024;

    /// Looks into requests until one shows the flow.
    pub(crate) fn identify(&self, requests: &[u8]) {
        if self.flow.load(Relaxed) != Flow::Commands as u8 {
            return;
        }
        let has = |part: &[u8]| requests.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
        if has(b"\r\nSUBSCRIBE\r\n") {
            self.flow.store(Flow::Subscribing as u8, Relaxed);
        } else if has(b"\"kind\":\"hello\"") {
            self.flow.store(Flow::Publishing as u8, Relaxed);
        }
    }

    pub(crate) fn is_of(&self, flow: Flow) -> bool {
        self.flow.load(Relaxed) == flow as u8
    }

    fn is_among(&self, selection: Selection) -> bool {
        self.number < selection.below && selection.flow.is_none_or(|flow| self.is_of(flow))
    }

    /// Holds one direction of all connections of a flow.
    pub(crate) fn hold_all(&self, flow: Flow, direction: Direction) {
        self.all.hold(Some(flow), direction);
    }

    pub(crate) fn is_held(&self, direction: Direction) -> bool {
        self.all.held.borrow().iter().any(|(selection, held)| *held == direction && self.is_among(*selection))
    }

    pub(crate) fn slow_down(&self) {
        self.is_slow.store(true, Relaxed);
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Relaxed)
    }

    /// Whether its client has gone while its requests were held.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.load(Relaxed)
    }

    /// Collects bytes until this direction is held no longer; returns whether the sender is still there.
    pub(crate) async fn collect(&self, direction: Direction, from: &mut OwnedReadHalf, bytes: &mut Vec<u8>) -> bool {
        let mut held = self.all.held.subscribe();
        let mut is_open = true;
        while self.is_held(direction) {
            tokio::select! {
                read = from.read_buf(bytes), if is_open && bytes.len() < Self::HELD => {
                    is_open = read.is_ok_and(|read| read > 0);
                    if !is_open && direction == Direction::ToServer {
                        self.is_late.store(true, Relaxed);
                    }
                }
                changed = held.changed() => if changed.is_err() { break },
            }
        }
        is_open
    }

    /// Waits until a fault closes it.
    pub(crate) async fn closed(&self) {
        let mut closed = self.all.closed.subscribe();
        // A flow that was closed before this connection was opened has only lower numbers.
        let is_hit = |selection: &Option<Selection>| selection.is_some_and(|selection| self.is_among(selection));
        if closed.wait_for(is_hit).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc::{Receiver, channel};
    use tokio::time::timeout;

    use crate::{Direction, Flow, Proxy};

    const HELLO: &[u8] = b"*2\r\n$7\r\nEVALSHA\r\n$23\r\n{\"v\":1,\"kind\":\"hello\",}\r\n";
    const SUBSCRIBE: &[u8] = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n";
    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers each read with `+OK`, and passes on what it reads.
    async fn server() -> (Proxy, Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap()).await;
        let (sender, receiver) = channel(64);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                        let _ = sender.send(std::mem::take(&mut bytes)).await;
                        let _ = stream.write_all(b"+OK\r\n").await;
                    }
                });
            }
        });
        (proxy, receiver)
    }

    async fn next(requests: &mut Receiver<Vec<u8>>) -> Vec<u8> {
        timeout(SOON, requests.recv()).await.expect("a request arrives").expect("the server runs")
    }

    async fn answer(client: &mut TcpStream) -> usize {
        timeout(SOON, client.read(&mut [0; 16])).await.expect("an answer arrives").unwrap_or(0)
    }

    /// Connects, and has a request answered that shows the flow.
    async fn client(proxy: &Proxy, requests: &mut Receiver<Vec<u8>>, request: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        client.write_all(request).await.unwrap();
        assert_eq!(next(requests).await, request);
        assert_eq!(answer(&mut client).await, 5);
        client
    }

    #[tokio::test]
    async fn held_requests_arrive_late_also_if_their_client_has_gone() {
        let (proxy, mut requests) = server().await;
        let mut publishing = client(&proxy, &mut requests, HELLO).await;
        let mut commands = client(&proxy, &mut requests, b"PING\r\n").await;
        proxy.hold_flow(Flow::Publishing, Direction::ToServer);
        publishing.write_all(b"late").await.unwrap();
        drop(publishing);
        commands.write_all(b"other").await.unwrap();
        assert_eq!(next(&mut requests).await, b"other");
        let _new = client(&proxy, &mut requests, HELLO).await;
        proxy.release();
        assert_eq!(next(&mut requests).await, b"late");
    }

    #[tokio::test]
    async fn requests_are_held_from_the_first_one_on_that_has_some_bytes() {
        let (proxy, mut requests) = server().await;
        let mut commands = client(&proxy, &mut requests, b"PING\r\n").await;
        proxy.hold_flow_from(Flow::Commands, "join");
        commands.write_all(b"other").await.unwrap();
        assert_eq!(next(&mut requests).await, b"other");
        assert_eq!(answer(&mut commands).await, 5);
        commands.write_all(b"a join").await.unwrap();
        let _new = client(&proxy, &mut requests, b"a join").await;
        proxy.release();
        assert_eq!(next(&mut requests).await, b"a join");
        assert_eq!(answer(&mut commands).await, 5);
    }

    #[tokio::test]
    async fn held_answers_wait_and_other_connections_do_not() {
        let (proxy, mut requests) = server().await;
        let mut publishing = client(&proxy, &mut requests, HELLO).await;
        let mut subscribing = client(&proxy, &mut requests, SUBSCRIBE).await;
        proxy.hold_flow(Flow::Publishing, Direction::ToClient);
        publishing.write_all(b"held").await.unwrap();
        assert_eq!(next(&mut requests).await, b"held");
        subscribing.write_all(b"other").await.unwrap();
        assert_eq!(answer(&mut subscribing).await, 5);
        assert!(publishing.try_read(&mut [0; 16]).is_err(), "its answer is held");
        proxy.release();
        assert_eq!(answer(&mut publishing).await, 5);
    }

    #[tokio::test]
    async fn a_flow_is_closed_without_the_others() {
        let (proxy, mut requests) = server().await;
        let mut publishing = client(&proxy, &mut requests, HELLO).await;
        let mut subscribing = client(&proxy, &mut requests, SUBSCRIBE).await;
        proxy.close_flow(Flow::Subscribing);
        assert_eq!(answer(&mut subscribing).await, 0, "it is closed");
        publishing.write_all(b"more").await.unwrap();
        assert_eq!(next(&mut requests).await, b"more");
        assert_eq!(answer(&mut publishing).await, 5);
        client(&proxy, &mut requests, SUBSCRIBE).await;
    }
}

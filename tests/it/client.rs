//! Clients without a protocol library of ours, so that they can also send invalid bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A limit for every wait; a fault that a test causes lasts at most half as long.
const SOON: Duration = Duration::from_secs(60);

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends raw bytes and reads until the server closes.
pub(crate) async fn raw(addr: SocketAddr, request: &[u8]) -> Response {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let bytes = timeout(SOON, exchange).await.expect("the server answers and closes");
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Response { status, head, body: bytes.get(split + 4..).unwrap_or_default().to_vec() }
}

/// Sends a request, with a body unless it is empty.
pub(crate) async fn request(addr: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> Response {
    let mut text = format!("{line} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n").into_bytes();
    for header in headers {
        text.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    if !body.is_empty() {
        text.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    raw(addr, &text).await
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> Response {
    request(addr, &format!("GET {path}"), &[], b"").await
}

pub(crate) async fn post_json(addr: SocketAddr, path: &str, body: &str) -> Response {
    request(addr, &format!("POST {path}"), &["content-type: application/json"], body.as_bytes()).await
}

const RESPONSE: &[u8] = br#""context":"response""#;

/// A WebSocket without a protocol library: it sends any bytes, after the handshake and the node's welcome.
pub(crate) struct RawSocket {
    reader: OwnedReadHalf,
    pub(crate) writer: OwnedWriteHalf,
    received: Vec<u8>,
}

impl RawSocket {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, "").await.unwrap_or_else(|status| panic!("refused with {status}"))
    }

    /// Connects with additional header lines; the error is the status that refused the upgrade.
    pub(crate) async fn connect_with(addr: SocketAddr, headers: &str) -> Result<Self, u16> {
        let (reader, writer) = TcpStream::connect(addr).await.unwrap().into_split();
        let mut socket = Self { reader, writer, received: Vec::new() };
        let head = format!(
            "GET /ws HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n{headers}\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.writer.write_all(head.as_bytes()).await.unwrap();
        let end = loop {
            if let Some(at) = socket.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            receive(&mut socket.reader, &mut socket.received).await;
        };
        let head: Vec<u8> = socket.received.drain(..end).collect();
        match std::str::from_utf8(&head[9..12]).unwrap() {
            "101" => assert_eq!(socket.frame().await.0, 0x81, "the welcome"),
            status => return Err(status.parse().unwrap()),
        }
        Ok(socket)
    }

    /// Sends a frame and returns the next response, of which all parts have come; messages before it are dropped.
    pub(crate) async fn request(&mut self, frame: &[u8]) -> Vec<u8> {
        self.writer.write_all(frame).await.unwrap();
        let mut message = Vec::new();
        loop {
            let (first, payload) = self.frame().await;
            let is_control = first & 0x08 != 0;
            if !is_control {
                message.extend(payload);
            }
            let is_last = first & 0x80 != 0 && !is_control;
            if is_last && message.windows(RESPONSE.len()).any(|part| part == RESPONSE) {
                return message;
            }
            if is_last {
                message.clear();
            }
        }
    }

    /// A frame of a client, with a first byte of flags and opcode; its mask is zero.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match u16::try_from(payload.len()).expect("a short frame") {
            short @ ..126 => vec![0x80 | short as u8],
            long => [&[0x80 | 126], &long.to_be_bytes()[..]].concat(),
        };
        [&[first], &length[..], &[0; 4], payload].concat()
    }

    /// Sends these bytes again and again until the node closes, and returns the code of its close frame.
    pub(crate) async fn flood(self, bytes: &[u8], times: usize) -> u16 {
        let Self { mut reader, mut writer, mut received } = self;
        let flood = async {
            for _ in 0..times {
                if writer.write_all(bytes).await.is_err() {
                    return; // the node has closed, and its close frame may still arrive
                }
            }
        };
        let close = async {
            loop {
                if let (0x88, payload) = next_frame(&mut reader, &mut received).await {
                    return u16::from_be_bytes([payload[0], payload[1]]);
                }
            }
        };
        tokio::pin!(close);
        tokio::select! {
            code = &mut close => code,
            () = flood => close.await,
        }
    }

    /// The code of the server's close frame; frames before it are dropped.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame().await;
            if first == 0x88 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    /// The next frame: its first byte and its payload.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        next_frame(&mut self.reader, &mut self.received).await
    }
}

async fn next_frame(reader: &mut OwnedReadHalf, received: &mut Vec<u8>) -> (u8, Vec<u8>) {
    loop {
        let (start, length) = match *received.as_slice() {
            [_, 126, high, low, ..] => (4, u16::from_be_bytes([high, low]).into()),
            [_, 127, 0, 0, 0, 0, a, b, c, d, ..] => (10, u32::from_be_bytes([a, b, c, d]) as usize),
            [_, length @ ..126, ..] => (2, usize::from(length)),
            _ => (usize::MAX, 0),
        };
        if let Some(end) = start.checked_add(length).filter(|end| *end <= received.len()) {
            let frame: Vec<u8> = received.drain(..end).collect();
            return (frame[0], frame[start..].to_vec());
        }
        receive(reader, received).await;
    }
}

async fn receive(reader: &mut OwnedReadHalf, received: &mut Vec<u8>) {
    let read = timeout(SOON, reader.read_buf(received)).await.expect("the node sends");
    assert_ne!(read.unwrap(), 0, "the node has closed: {}", String::from_utf8_lossy(received));
}

/// A WebSocket client.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) welcome: Value,
    pub(crate) protocol: Option<String>,
    pong: Option<Bytes>,
    /// The rest of a presence frame with several members, as if each had one of its own.
    split: VecDeque<Value>,
}

impl Socket {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, "/ws", &[]).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// Connects with additional headers; the error is the response that refused the upgrade.
    pub(crate) async fn connect_with(
        addr: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response> {
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (stream, response) = match tokio_tungstenite::connect_async(request).await {
            Ok(connected) => connected,
            Err(Error::Http(refused)) => {
                let (parts, body) = refused.into_parts();
                let head = format!("{:?}", parts.headers);
                return Err(Response { status: parts.status.as_u16(), head, body: body.unwrap_or_default() });
            }
            Err(error) => panic!("{error}"),
        };
        let protocol = response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap().to_owned());
        let mut socket = Self { stream, welcome: Value::Null, protocol, pong: None, split: VecDeque::new() };
        socket.welcome = socket.read().await;
        Ok(socket)
    }

    /// Connects and joins a room.
    pub(crate) async fn join(addr: SocketAddr, room: &str) -> Self {
        let mut socket = Self::connect(addr).await;
        let joined = socket.request(&format!(r#"{{"event":"roomAdd","room":"{room}"}}"#)).await;
        assert_eq!(joined["status"], "OK", "{joined}");
        socket
    }

    /// Does the same unless the connection is refused or ends before, or the node is out of the cluster at the moment; the
    /// error says how.
    pub(crate) async fn try_join(addr: SocketAddr, room: &str) -> Result<Self, Error> {
        let (stream, _) = tokio_tungstenite::connect_async(format!("ws://{addr}/ws")).await?;
        let mut socket = Self { stream, welcome: Value::Null, protocol: None, pong: None, split: VecDeque::new() };
        let request = format!(r#"{{"event":"roomAdd","room":"{room}"}}"#);
        socket.stream.send(Message::text(request)).await?;
        loop {
            match timeout(SOON, socket.stream.next()).await.expect("a frame arrives") {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    match frame["context"].as_str() {
                        Some("response") if frame["status"] == "OK" => return Ok(socket),
                        Some("response") if frame["error"]["code"] == "unavailable" => {
                            return Err(std::io::Error::other(frame.to_string()).into());
                        }
                        Some("response") => panic!("{frame}"),
                        _ if socket.welcome.is_null() => socket.welcome = frame,
                        _ => {}
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Err(Error::ConnectionClosed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    pub(crate) fn id(&self) -> String {
        self.welcome["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Sends a raw frame, for example a fragment of a message.
    pub(crate) async fn send_frame(&mut self, frame: Frame) {
        self.stream.send(Message::Frame(frame)).await.unwrap();
    }

    /// Closes with code 1001 and returns the code of the server's close frame.
    pub(crate) async fn close(&mut self) -> u16 {
        let close = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::default() };
        self.stream.send(Message::Close(Some(close))).await.unwrap();
        self.closed().await
    }

    /// Waits until the last pong received has this payload; other frames are dropped.
    pub(crate) async fn pong(&mut self, payload: &str) {
        let received = async {
            while self.pong.as_deref() != Some(payload.as_bytes()) {
                match self.stream.next().await {
                    Some(Ok(Message::Pong(pong))) => self.pong = Some(pong),
                    Some(Ok(_)) => {}
                    other => panic!("a pong, not {other:?}"),
                }
            }
        };
        timeout(SOON, received).await.expect("a pong arrives");
    }

    /// Waits until the server has closed the TCP connection.
    pub(crate) async fn ended(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    pub(crate) async fn send_binary(&mut self, bytes: &'static [u8]) {
        self.stream.send(Message::binary(bytes)).await.unwrap();
    }

    /// The next text frame, parsed. One of presence with several members is read as one for each.
    pub(crate) async fn read(&mut self) -> Value {
        if let Some(frame) = self.split.pop_front() {
            return frame;
        }
        let mut frame: Value = serde_json::from_str(&self.read_text().await).unwrap();
        if frame["context"] == "presence"
            && let Some(Value::Array(members)) = frame.as_object_mut().and_then(|frame| frame.remove("members"))
        {
            for member in members {
                frame["member"] = member;
                self.split.push_back(frame.clone());
            }
            return self.split.pop_front().expect("a frame names a member");
        }
        frame
    }

    /// The next text frame, verbatim.
    pub(crate) async fn read_text(&mut self) -> String {
        loop {
            match timeout(SOON, self.stream.next()).await.expect("a frame arrives") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Pong(pong))) => self.pong = Some(pong),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("a text frame, not {other:?}"),
            }
        }
    }

    /// Sends a frame and returns the next response; frames before it are dropped.
    pub(crate) async fn request(&mut self, text: &str) -> Value {
        self.send(text).await;
        self.next_in("response").await
    }

    /// Sends a frame and returns the response with its `messageId`; frames before it are dropped.
    pub(crate) async fn request_by_id(&mut self, request: &Value) -> Value {
        self.send(&request.to_string()).await;
        loop {
            let frame = self.read().await;
            if frame["messageId"] == request["messageId"] {
                return frame;
            }
        }
    }

    /// The next frame with this context; frames before it are dropped.
    pub(crate) async fn next_in(&mut self, context: &str) -> Value {
        loop {
            let frame = self.read().await;
            if frame["context"] == context {
                return frame;
            }
        }
    }

    /// Waits for the server's close frame and returns its code (1005 without a code, 1006 without a close frame).
    pub(crate) async fn closed(&mut self) -> u16 {
        timeout(SOON, self.closed_at_last()).await.expect("the server closes")
    }

    /// Does the same without a limit.
    pub(crate) async fn closed_at_last(&mut self) -> u16 {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Close(Some(close)))) => return CloseCode::into(close.code),
                Some(Ok(Message::Close(None))) => return 1005,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    }
}

//! A loop that writes: every message of a socket is encoded once and written to every socket, one write each.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Anyhow;
use crate::load::wire::{FrameReader, encode_server};

type Members = Arc<Mutex<Vec<OwnedWriteHalf>>>;

pub(super) async fn serve(listener: TcpListener) -> Result<(), Anyhow> {
    let members: Members = Arc::default();
    let (publish, mut published) = mpsc::channel::<Vec<u8>>(64);
    let receivers = members.clone();
    tokio::spawn(async move {
        while let Some(frame) = published.recv().await {
            let mut all = std::mem::take(&mut *receivers.lock().unwrap_or_else(PoisonError::into_inner));
            for member in &mut all {
                drop(member.write_all(&frame).await);
            }
            receivers.lock().unwrap_or_else(PoisonError::into_inner).append(&mut all);
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(member(stream, members.clone(), publish.clone()));
    }
}

async fn member(stream: TcpStream, members: Members, publish: mpsc::Sender<Vec<u8>>) -> Result<(), Anyhow> {
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let head = reader.head().await?;
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).ok_or("no key")?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    write.write_all(answer.as_bytes()).await?;
    write.write_all(&encode_server(br#"{"welcome":"bare"}"#)).await?;
    let mut own = Some(write);
    loop {
        let frame = reader.next().await?;
        if let Some(mut write) = own.take() {
            // The first frame joins the room; its answer is that of a node.
            write.write_all(&encode_server(br#"{"status":"OK","context":"response","data":true}"#)).await?;
            members.lock().unwrap_or_else(PoisonError::into_inner).push(write);
            continue;
        }
        let message = frame.windows(10).position(|window| window == br#""message":"#).ok_or("no message")?;
        let mut payload = b"{".to_vec();
        payload.extend_from_slice(&frame[message..frame.len() - 1]);
        payload.extend_from_slice(
            br#","room":"defaultRoom","from":"AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA","context":"user","sentAt":1700000000000}"#,
        );
        publish.send(encode_server(&payload)).await?;
    }
}

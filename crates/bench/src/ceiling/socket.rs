//! A bare axum socket: every frame is answered by one that was encoded in advance, with one write each.

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::Anyhow;
use crate::load::socket::ANSWER;

pub(super) async fn serve(listener: TcpListener) -> Result<(), Anyhow> {
    let router = Router::new().route("/ws", get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(answer)));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

async fn answer(mut socket: WebSocket) {
    let answer = Utf8Bytes::from_static(ANSWER);
    let welcome = Utf8Bytes::from_static(r#"{"welcome":"bare"}"#);
    if socket.send(Message::Text(welcome)).await.is_err() {
        return;
    }
    while let Some(Ok(Message::Text(_))) = socket.recv().await {
        if socket.send(Message::Text(answer.clone())).await.is_err() {
            break;
        }
    }
}

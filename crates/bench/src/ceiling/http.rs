//! A bare axum handler: the path's parameter as JSON, with the headers that a node sends.

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::Anyhow;

#[derive(Serialize)]
struct Echoed {
    text: String,
}

pub(super) async fn serve(listener: TcpListener, headers: &[String]) -> Result<(), Anyhow> {
    let mut list = Vec::new();
    for header in headers {
        let (name, value) = header.split_once(": ").ok_or("a header is written `name: value`")?;
        list.push((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?));
    }
    list.retain(|(name, _)| name != CONTENT_TYPE); // axum adds it itself
    let list: &'static [_] = list.leak();
    let handler = async move |Path(text): Path<String>| {
        let mut response = Json(Echoed { text }).into_response();
        for (name, value) in list {
            response.headers_mut().append(name, value.clone());
        }
        response
    };
    let router = Router::new().route("/api/echo/{text}", get(handler));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

//! A bare axum handler: the path's parameter as JSON, and the headers a node sends.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use axum::serve::ListenerExt;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::Anyhow;

#[derive(Serialize)]
struct Echoed {
    text: String,
}

pub(super) async fn serve(listener: TcpListener, headers: &[String]) -> Result<(), Anyhow> {
    let mut map = HeaderMap::new();
    for header in headers {
        let (name, value) = header.split_once(": ").ok_or("a header is written `name: value`")?;
        map.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
    }
    map.remove(CONTENT_TYPE); // axum writes it
    let handler = async move |Path(text): Path<String>| (map.clone(), axum::Json(Echoed { text }));
    let router = Router::new().route("/api/echo/{text}", get(handler));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

//! The browser client, served by every node.

use axum::extract::Request;
use axum::response::Response;

use super::reply;
use super::static_files::{Asset, asset};

static MODULE: Asset = Asset::new("text/javascript; charset=utf-8", include_bytes!("../../assets/phalanx-client.js"));
static TYPES: Asset = Asset::new("text/plain; charset=utf-8", include_bytes!("../../assets/phalanx-client.d.ts"));

/// The ES module.
pub(super) async fn module(request: Request) -> Response {
    serve(&MODULE, &request)
}

/// Its type declarations.
pub(super) async fn types(request: Request) -> Response {
    serve(&TYPES, &request)
}

fn serve(what: &'static Asset, request: &Request) -> Response {
    let refused = reply::unless_read(request.method());
    refused.unwrap_or_else(|| asset(what, request.method(), request.headers()))
}

//! The files of the browser client, which every node serves.

use axum::extract::Request;
use axum::response::Response;

use super::reply;
use super::static_files::{Asset, asset_response};

static MODULE: Asset = Asset::new("text/javascript; charset=utf-8", include_bytes!("../../assets/phalanx-client.js"));
static TYPES: Asset = Asset::new("text/plain; charset=utf-8", include_bytes!("../../assets/phalanx-client.d.ts"));

/// Serves the ES module.
pub(super) async fn module(request: Request) -> Response {
    serve(&MODULE, &request)
}

/// Serves its type declarations.
pub(super) async fn types(request: Request) -> Response {
    serve(&TYPES, &request)
}

fn serve(asset: &'static Asset, request: &Request) -> Response {
    let refused = reply::refuse_unless_read(request.method());
    refused.unwrap_or_else(|| asset_response(asset, request.method(), request.headers()))
}

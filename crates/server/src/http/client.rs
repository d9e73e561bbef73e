//! The browser client, served by every node.

use axum::extract::Request;
use axum::response::Response;

use super::files::{Asset, asset};

static MODULE: Asset = Asset::new("text/javascript; charset=utf-8", include_bytes!("../../assets/phalanx-client.js"));
static TYPES: Asset = Asset::new("text/plain; charset=utf-8", include_bytes!("../../assets/phalanx-client.d.ts"));

/// The ES module.
pub(super) async fn module(request: Request) -> Response {
    asset(&MODULE, request.method(), request.headers())
}

/// Its type declarations.
pub(super) async fn types(request: Request) -> Response {
    asset(&TYPES, request.method(), request.headers())
}

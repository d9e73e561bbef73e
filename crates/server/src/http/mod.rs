//! HTTP: the path of a request from the service that wraps everything to the action, and of its response back.

mod action;
mod allowed_hosts;
mod body;
mod client_assets;
mod compression;
mod cors;
pub(crate) mod cross_site;
mod debug_info;
mod exchange;
mod fallback;
mod forwarded;
mod forwarded_header;
pub(crate) mod headers;
mod host;
pub(crate) mod identity;
pub(crate) mod own_route_call;
mod params;
mod permit_body;
pub(crate) mod reply;
mod request_path;
mod routes;
pub(crate) mod service;
mod static_files;
mod stream_end;

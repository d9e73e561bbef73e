//! HTTP: the walk of a request from the shell around everything to the action and back.

mod body;
mod call;
mod client;
mod cors;
mod files;
mod held;
mod hosts;
pub(crate) mod identity;
mod metadata;
mod multipart;
mod own;
mod pace;
mod params;
pub(crate) mod reply;
mod route;
pub(crate) mod shell;

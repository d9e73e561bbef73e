//! The domain of Phalanx: actions, connections, rooms, and the seams to a backend.

pub mod config;
mod error;

pub use error::{ActionError, Detail, ErrorKind};

//! What the tests of Phalanx share: laws for backends, nodes, a client.

pub mod laws;
mod process;

pub use process::{Process, Signal, run};

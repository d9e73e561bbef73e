//! The parent of a cluster of worker processes on one machine.
//!
//! It depends on no other crate of the workspace: a worker is a program that speaks the protocol of [`link`].

pub mod link;
pub mod machine;

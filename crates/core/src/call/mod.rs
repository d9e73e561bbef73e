//! A call between its head and its function: the body, and the clock that stands still while it is awaited.

pub mod body;
pub(crate) mod clock;

//! A call between its head and its function: the gate of its groups, the body, the clock that stands still while it is awaited,
//! and what the parts of the call share.

pub mod body;
pub(crate) mod clock;
pub(crate) mod gate;
pub mod head;
pub(crate) mod raw_body;
pub(crate) mod slots;

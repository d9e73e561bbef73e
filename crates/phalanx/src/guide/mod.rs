//! The guide: how to write an application, and how to run it.

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("actions.md")]
pub mod actions {}

#[doc = include_str!("websocket.md")]
pub mod websocket {}

#[doc = include_str!("rooms.md")]
pub mod rooms {}

#[doc = include_str!("sharing.md")]
pub mod sharing {}

#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("actionhero.md")]
pub mod actionhero {}

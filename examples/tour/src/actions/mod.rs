//! The tour's actions, by topic.

pub(crate) mod basic;
pub(crate) mod batches;
pub(crate) mod cluster;
pub(crate) mod jobs;
pub(crate) mod requests;
pub(crate) mod rooms;
pub(crate) mod sessions;
pub(crate) mod shared;
pub(crate) mod tags;

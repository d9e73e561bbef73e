//! `start cluster` and the commands of its parent, with real processes.

mod refusals;

//! The parent of a cluster of worker processes on one machine.
//!
//! It depends on no other crate of the workspace: a worker is a program that speaks the protocol of [`link`]. The
//! [`machine`] decides, [`run`] carries out.

mod hung_up;
pub mod link;
pub mod machine;
mod shell;
mod status;

pub use shell::{
    AdminEndpoint, BlockedSignals, ControlClient, ControlError, ControlReply, ControlRequest, Endpoint, MAX_COMMANDS,
    MAX_PATH, ParentEnd, ParentOutput, ParentSettings, ProgramName, ServiceManager, WorkerGroup, run,
};
pub use status::{ClusterStatus, RollStatus, WorkerStatus};

//! The section `paths`: folders that the node reads and writes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files and folders, relative to the working directory unless the application says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Folders whose files any client may read; the first match wins.
    pub public: Vec<PathBuf>,
    /// Folder of the pid file; empty means none.
    pub pid: PathBuf,
    /// Folder of the log files.
    pub log: PathBuf,
    /// Folder of uploaded files while their request runs; empty means the system's temporary folder.
    pub uploads: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { public: vec!["public".into()], pid: "pids".into(), log: "log".into(), uploads: PathBuf::new() }
    }
}

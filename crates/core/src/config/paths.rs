//! The section `paths`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files and folders, relative to the working directory unless the application says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Folders whose files everybody may read, first match wins.
    pub public: Vec<PathBuf>,
    /// Where the pid file goes.
    pub pid: PathBuf,
    /// Where log files go.
    pub log: PathBuf,
    /// Where uploads wait while their request runs; empty means the system's folder.
    pub uploads: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { public: vec!["public".into()], pid: "pids".into(), log: "log".into(), uploads: PathBuf::new() }
    }
}

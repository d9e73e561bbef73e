//! The section `log`: level, format, file.

use serde::{Deserialize, Serialize};

/// Logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Level (`info`) or filter (`info,phalanx=debug`). `RUST_LOG` takes precedence.
    pub level: String,
    /// Format of a line.
    pub format: LogFormat,
    /// Writes `<paths.log>/<node id>-<env>.log` as well, as JSON.
    pub file: bool,
    /// Files of earlier days that are kept beside it, with their dates; zero: it is not rotated.
    pub keep: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto, file: true, keep: 7 }
    }
}

/// Format of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON in production, human-readable elsewhere.
    Auto,
    /// Human-readable text.
    Human,
    /// One JSON object per line.
    Json,
}

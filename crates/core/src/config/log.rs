//! The section `log`.

use serde::{Deserialize, Serialize};

/// Logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged: `info`, or a filter such as `info,phalanx=debug`. `RUST_LOG` wins.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Writes `<paths.log>/<node id>-<env>.log` as well, as JSON.
    pub file: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto, file: false }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON in production, for people elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

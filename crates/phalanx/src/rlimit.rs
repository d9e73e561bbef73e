//! The limit of file descriptors, and their table. Every socket uses one, and the usual limit is 1,024.

use std::io;

use phalanx_core::config::Config;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// The descriptors that a node needs besides those of its connections: for Redis, logs, timers, folders.
pub(crate) const OWN_FILES: usize = 100;

/// The most descriptors for which the table gets its room at the start, 8 bytes for each. Beyond, it grows.
const MOST_AT_START: u64 = 1 << 20;

/// How many descriptors a node can need.
pub(crate) fn needed(config: &Config) -> usize {
    let connections = config.web.max_connections.saturating_add(config.websocket.max_connections);
    connections.saturating_add(OWN_FILES)
}

/// The errors of [`prepare`], which runs before there is a log.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Prepared {
    not_raised: Option<io::Error>,
    not_grown: Option<io::Error>,
}

/// Raises the soft limit to the hard limit, which needs no privileges, and gives the table of descriptors its room for
/// `files` of them.
///
/// To be called before other threads start. When the table of a process with threads grows, which happens at 64 descriptors
/// and at each power of two from 256, Linux stops the thread that opened one until each core has passed a quiet state
/// (`expand_fdtable`, `synchronize_rcu`). That takes 5–30 ms on a busy machine, seconds on an overloaded one, and all that
/// runs on that thread waits with it.
pub(crate) fn prepare(files: usize) -> Prepared {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = most.min(files as u64).min(MOST_AT_START).saturating_sub(1);
    // The copy is closed at once: the table stays as large as it was made.
    let grown = i32::try_from(last).map_or(Ok(()), |last| fcntl_dupfd_cloexec(io::stderr(), last).map(drop));
    Prepared { not_raised: raised.err().map(Into::into), not_grown: grown.err().map(Into::into) }
}

impl Prepared {
    /// Logs its errors, and a line if the limit is less than `connections`.
    pub(crate) fn log(self, connections: usize) {
        if let Some(error) = self.not_raised {
            warn!(%error, "the limit of file descriptors could not be raised");
        }
        if let Some(error) = self.not_grown {
            debug!(%error, "the table of file descriptors grows while the node runs");
        }
        let limit = getrlimit(Resource::Nofile).current;
        if let Some(limit) = limit.filter(|limit| *limit < connections as u64) {
            debug!(
                limit,
                wanted = connections,
                "fewer file descriptors than web.max_connections: raise the limit with `ulimit -Hn`"
            );
        }
    }
}

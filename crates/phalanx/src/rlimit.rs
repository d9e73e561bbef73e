//! The limit of file descriptors. Every socket uses one, and the usual default is 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard limit, which needs no privileges. Logs a line if that is less than `wanted`.
pub(crate) fn raise(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        warn!(%error, "the limit of file descriptors could not be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| *limit < wanted as u64) {
        debug!(limit, wanted, "fewer file descriptors than web.max_connections: raise the limit with `ulimit -Hn`");
    }
}

//! File descriptors: a socket costs one, and shells hand out a thousand unless they are told otherwise.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises this process's limit to what the system allows it without asking anybody.
pub(crate) fn raise(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        warn!(%error, "the limit of file descriptors stays as it was");
    }
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < wanted as u64 => {
            debug!(limit, wanted, "fewer file descriptors than connections may come: `ulimit -Hn` sets more");
        }
        _ => {}
    }
}

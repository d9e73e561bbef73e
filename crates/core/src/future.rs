//! A boxed future, and how long a call may run.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future that owns or borrows its data, behind one pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long a call of an action or a remote method may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the settings say: `general.action_deadline`, `general.rpc_timeout`.
    Default,
    /// This long; then its future is dropped and the caller gets `timeout`.
    After(Duration),
    /// Without a limit.
    Never,
}

impl Deadline {
    /// The limit, if there is one, where `default` is that of the settings.
    pub(crate) fn limit(self, default: Duration) -> Option<Duration> {
        match self {
            Self::Default => Some(default),
            Self::After(limit) => Some(limit),
            Self::Never => None,
        }
    }
}

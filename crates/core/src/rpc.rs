//! Methods that run on a connection, wherever it lives: the built-in ones and an application's own.

use std::fmt;

use schemars::Schema;

use crate::action::{BoxFuture, Deadline};
use crate::answer::{IntoAnswer, Outcome};
use crate::context::{Context, Requirements};
use crate::params::Params;

/// The type that `#[remote]` makes beside a function.
pub trait Remote: Send + Sync + 'static {
    /// What the method takes; that it is an [`Input`](crate::params::Input) is asked where its schema is read.
    type Input: 'static;
    /// What it answers.
    type Output: IntoAnswer;
    /// Everything else about it.
    const DEF: RemoteDef;
}

/// A remote method as data. Only what is registered can be called from another node.
#[derive(Clone, Copy)]
pub struct RemoteDef {
    /// Its name.
    pub name: &'static str,
    /// The doc comment of the function.
    pub description: &'static str,
    /// How long a caller waits unless it says otherwise.
    pub deadline: Deadline,
    /// The schema of its input.
    pub input: fn() -> Schema,
    /// The schema of its output.
    pub output: fn() -> Schema,
    /// Names what its guards need, for the check at boot.
    pub require: fn(&mut Requirements),
    /// Extracts guards, decodes the input, runs the function and encodes what it returns.
    pub run: fn(Context, Params) -> BoxFuture<'static, Outcome>,
}

impl fmt::Debug for RemoteDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Lists remote methods for `App::remotes`: `remotes![authorize]`.
#[macro_export]
macro_rules! remotes {
    ($($remote:path),* $(,)?) => {
        [$(<$remote as $crate::Remote>::DEF),*]
    };
}

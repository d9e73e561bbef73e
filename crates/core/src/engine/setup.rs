//! The parts that a node is started from.

use std::sync::Arc;

use crate::backend::Backend;
use crate::config::{Config, Environment};
use crate::initializer::Initializer;
use crate::registry::Definitions;
use crate::shutdown::Shutdown;
use crate::transport::Transport;

/// Everything that a node is started from.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeSetup {
    /// The application's name.
    pub app: String,
    /// The application's version.
    pub version: String,
    /// The node's name for people and logs.
    pub node_id: String,
    /// Its settings.
    pub config: Config,
    /// The environment that it runs in.
    pub environment: Environment,
    /// The definitions of the application.
    pub definitions: Definitions,
    /// The parts that are prepared before the first call.
    pub initializers: Vec<Arc<dyn Initializer>>,
    /// The listeners for clients and operators.
    pub transports: Vec<Arc<dyn Transport>>,
    /// The backend that nodes share.
    pub backend: Backend,
    /// The request to stop, which may come while the node starts.
    pub shutdown: Shutdown,
}

impl NodeSetup {
    /// A node of that application with these settings: on the embedded backend, without transports, in `test`.
    pub fn new(app: impl Into<String>, config: Config) -> Self {
        Self {
            app: app.into(),
            version: "0.0.0".to_owned(),
            node_id: "node".to_owned(),
            environment: Environment("test".to_owned()),
            definitions: Definitions::default(),
            initializers: Vec::new(),
            transports: Vec::new(),
            backend: Backend::memory(&config),
            shutdown: Shutdown::default(),
            config,
        }
    }
}

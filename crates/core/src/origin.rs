//! The transport over which a call arrives.

/// The transport over which a call arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An HTTP request.
    Http,
    /// A frame of a socket.
    Websocket,
    /// The application itself: another action, another node, a task, the command line.
    Internal,
}

impl Origin {
    /// Its name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Websocket => "websocket",
            Self::Internal => "internal",
        }
    }
}

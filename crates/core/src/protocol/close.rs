//! The reasons for which a connection closes, and their close codes.

/// The reason for which a connection closes; the close code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client left, or sent `quit` (1000).
    ClientLeft,
    /// The node stops (1001).
    NodeStops,
    /// The client broke the WebSocket protocol, such as by an unmasked frame or a reserved opcode (1002).
    Protocol,
    /// A binary frame came in (1003).
    Binary,
    /// A text frame was not UTF-8 (1007).
    InvalidText,
    /// Too many malformed frames (1008).
    Policy,
    /// A frame was over the limit (1009).
    TooBig,
    /// The client reads more slowly than its messages arrive: its outbox overflowed (4001).
    SlowReader,
    /// Nothing was received from the client for a whole heartbeat (4002).
    HeartbeatLost,
    /// The client went on sending over its rate (4003).
    RateLimited,
    /// The session of the client was renewed under another id: it reconnects with that (4004).
    SessionRenewed,
    /// The application destroyed the connection (4500).
    Destroyed,
    /// The application no longer admits this client (4501).
    NotAllowed,
    /// The application closed the connection with a code of its own (4502 to 4999).
    Application(ApplicationCode),
    /// The network or the client broke the connection; no code can be sent.
    Broken,
}

/// A close code of an application's own: [`CloseReason::of_application`] makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationCode(u16);

impl CloseReason {
    /// The reason for a close code of an application, from 4500 to 4999; `None` for any other.
    pub const fn of_application(code: u16) -> Option<Self> {
        match code {
            4500 => Some(Self::Destroyed),
            4501 => Some(Self::NotAllowed),
            4502..=4999 => Some(Self::Application(ApplicationCode(code))),
            _ => None,
        }
    }

    /// The close code; 4000 to 4499 mean *reconnect*, 4500 to 4999 *do not*.
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientLeft => 1000,
            Self::NodeStops => 1001,
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::InvalidText => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::SlowReader => 4001,
            Self::HeartbeatLost => 4002,
            Self::RateLimited => 4003,
            Self::SessionRenewed => 4004,
            Self::Destroyed => 4500,
            Self::NotAllowed => 4501,
            Self::Application(ApplicationCode(code)) => code,
            Self::Broken => 1006,
        }
    }

    /// Its name in logs, metrics and close frames.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::NodeStops => "node_stops",
            Self::Protocol => "protocol",
            Self::Binary => "binary",
            Self::InvalidText => "invalid_text",
            Self::Policy => "policy",
            Self::TooBig => "too_big",
            Self::SlowReader => "slow_reader",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::RateLimited => "rate_limited",
            Self::SessionRenewed => "session_renewed",
            Self::Destroyed => "destroyed",
            Self::NotAllowed => "not_allowed",
            Self::Application(_) => "application",
            Self::Broken => "broken",
        }
    }

    /// Whether the frames still queued are dropped: the client does not read, or is not there.
    pub const fn abandons_outbox(self) -> bool {
        matches!(self, Self::SlowReader | Self::HeartbeatLost | Self::Broken)
    }
}

//! The rows of the budget: their work, their ceilings and their limits.

use clap::ValueEnum;

use crate::ceiling;

/// A row of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// An action over HTTP, 64 keep-alive connections.
    Http,
    /// An action over WebSocket, 64 sockets, one in flight each.
    Ws1,
    /// The same, four in flight each.
    Ws4,
    /// A room of 200, one publisher with one message in flight.
    Fan200,
    /// The same in a room of 1,000.
    Fan1000,
    /// A room of 200, eight publishers with four messages in flight each.
    Burst,
    /// A call to a connection of another node, one at a time.
    Apply1,
    /// The same, 32 at a time.
    Apply32,
    /// A call to a connection of the same node.
    ApplyLocal,
    /// Idle sockets in a room that sent one frame and received a hundred.
    Idle,
    /// The same, after each has sent a frame of the largest size.
    IdleLarge,
    /// Jobs that do nothing, one at a time.
    Tasks1,
    /// The same, 10 at a time.
    Tasks10,
    /// The same, 100 at a time.
    Tasks100,
    /// The same with a Redis that syncs its log before it answers.
    TasksSynced,
    /// Jobs of a queue with a limit in the cluster, beside those of one without.
    TasksLimited,
    /// An action that reads the session over HTTP, beside the same without.
    SessionHttp,
    /// The same over WebSocket.
    SessionWs,
    /// An action with a limit over HTTP, beside the same without.
    LimitHttp,
    /// The same over WebSocket.
    LimitWs,
    /// An action that reads the session over HTTP, at a Redis.
    SessionHttpRedis,
    /// The same over WebSocket.
    SessionWsRedis,
    /// An action with a limit over HTTP, at a Redis.
    LimitHttpRedis,
    /// The same over WebSocket.
    LimitWsRedis,
    /// The 99th percentile of calls while 10,000 sockets have a tag to which a message is sent each second.
    Crowd,
}

/// A call that is compared with the same call of the action `plain`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    /// The action.
    pub(crate) action: &'static str,
    pub(crate) over_websocket: bool,
    pub(crate) on_redis: bool,
}

impl Row {
    /// Every row, as the budget lists them.
    pub(crate) const ALL: [Self; 25] = [
        Self::Http,
        Self::Ws1,
        Self::Ws4,
        Self::Fan200,
        Self::Fan1000,
        Self::Burst,
        Self::Apply1,
        Self::Apply32,
        Self::ApplyLocal,
        Self::Idle,
        Self::IdleLarge,
        Self::Tasks1,
        Self::Tasks10,
        Self::Tasks100,
        Self::TasksSynced,
        Self::TasksLimited,
        Self::SessionHttp,
        Self::SessionWs,
        Self::LimitHttp,
        Self::LimitWs,
        Self::SessionHttpRedis,
        Self::SessionWsRedis,
        Self::LimitHttpRedis,
        Self::LimitWsRedis,
        Self::Crowd,
    ];

    /// Its name in the report.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Http => "HTTP action, 64 connections",
            Self::Ws1 => "WebSocket action, 64 x 1 in flight",
            Self::Ws4 => "WebSocket action, 64 x 4 in flight",
            Self::Fan200 => "fan-out to 200, one publisher",
            Self::Fan1000 => "fan-out to 1,000, one publisher",
            Self::Burst => "fan-out to 200, 8 publishers x 4",
            Self::Apply1 => "apply to another node, median",
            Self::Apply32 => "apply to another node, 32 in flight, by calls",
            Self::ApplyLocal => "apply on the same node, ns",
            Self::Idle => "idle socket, bytes",
            Self::IdleLarge => "idle socket after a frame of 64 KiB, bytes",
            Self::Tasks1 => "jobs, 1 slot, by jobs",
            Self::Tasks10 => "jobs, 10 slots, by jobs",
            Self::Tasks100 => "jobs, 100 slots, by jobs",
            Self::TasksSynced => "jobs, 100 slots, appendfsync always, by jobs",
            Self::TasksLimited => "jobs, 100 slots, limit beside none, by jobs",
            Self::SessionHttp => "HTTP action with a session, memory",
            Self::SessionWs => "WebSocket action with a session, memory",
            Self::LimitHttp => "HTTP action with a limit, memory",
            Self::LimitWs => "WebSocket action with a limit, memory",
            Self::SessionHttpRedis => "HTTP action with a session, Redis",
            Self::SessionWsRedis => "WebSocket action with a session, Redis",
            Self::LimitHttpRedis => "HTTP action with a limit, Redis",
            Self::LimitWsRedis => "WebSocket action with a limit, Redis",
            Self::Crowd => "p99 beside a tag of 10,000 sockets",
        }
    }

    /// The bare server that it is compared with. Idle sockets have absolute limits; calls to connections are compared with a
    /// pair of programs, and those with sessions and limits with others of the same node.
    pub(crate) const fn ceiling(self) -> Option<ceiling::Kind> {
        match self {
            Self::Http => Some(ceiling::Kind::Http),
            Self::Ws1 | Self::Ws4 => Some(ceiling::Kind::Socket),
            Self::Fan200 | Self::Fan1000 | Self::Burst => Some(ceiling::Kind::Fanout),
            Self::Apply1 | Self::Apply32 | Self::ApplyLocal | Self::Idle | Self::IdleLarge => None,
            Self::Tasks1 | Self::Tasks10 | Self::Tasks100 | Self::TasksSynced | Self::TasksLimited => None,
            Self::SessionHttp | Self::SessionWs | Self::SessionHttpRedis | Self::SessionWsRedis => None,
            Self::LimitHttp | Self::LimitWs | Self::LimitHttpRedis | Self::LimitWsRedis | Self::Crowd => None,
        }
    }

    /// The call that is compared with one of the same node, for a row about sessions or limits.
    pub(crate) const fn beside(self) -> Option<Beside> {
        let (action, over_websocket, on_redis) = match self {
            Self::SessionHttp => ("session", false, false),
            Self::SessionWs => ("session", true, false),
            Self::LimitHttp => ("limited", false, false),
            Self::LimitWs => ("limited", true, false),
            Self::SessionHttpRedis => ("session", false, true),
            Self::SessionWsRedis => ("session", true, true),
            Self::LimitHttpRedis => ("limited", false, true),
            Self::LimitWsRedis => ("limited", true, true),
            _ => return None,
        };
        Some(Beside { action, over_websocket, on_redis })
    }

    /// How many jobs run at once, for a row about jobs.
    pub(crate) const fn slots(self) -> Option<usize> {
        match self {
            Self::Tasks1 => Some(1),
            Self::Tasks10 => Some(10),
            Self::Tasks100 | Self::TasksSynced | Self::TasksLimited => Some(100),
            _ => None,
        }
    }

    /// Gate and goal: times the ceiling, or bytes, or nanoseconds. For 32 calls in flight, and for jobs, the budget is
    /// defined in calls a second, such as at least 0.3 and 0.45 times the ceiling's; here it is the inverse, time per
    /// call. A missed gate fails the bench.
    pub(crate) const fn budget(self) -> Option<(f64, f64)> {
        const WRITE_BUFFER: f64 = 8.0 * 1024.0;
        match self {
            Self::Http => Some((1.25, 1.1)),
            Self::Ws1 => Some((1.2, 1.05)),
            Self::Ws4 => Some((0.9, 0.7)),
            Self::Fan200 | Self::Fan1000 => Some((1.3, 1.1)),
            Self::Burst => Some((0.35, 0.2)),
            Self::Apply1 => Some((1.6, 1.3)),
            Self::Apply32 => Some((1.0 / 0.3, 1.0 / 0.45)),
            Self::ApplyLocal => Some((3000.0, 2000.0)),
            Self::Idle => Some((8.0 * 1024.0 + WRITE_BUFFER, 6.0 * 1024.0 + WRITE_BUFFER)),
            Self::IdleLarge => None,
            Self::Tasks1 => Some((1.0 / 0.8, 1.0)),
            Self::Tasks10 => Some((1.0 / 0.9, 1.0 / 1.1)),
            Self::Tasks100 => Some((1.0, 1.0 / 1.5)),
            Self::TasksSynced => Some((1.0 / 0.9, 1.0 / 1.2)),
            Self::TasksLimited => Some((1.0 / 0.8, 1.0 / 0.9)),
            Self::SessionHttp | Self::SessionWs | Self::LimitHttp | Self::LimitWs => Some((1.05, 1.02)),
            Self::SessionHttpRedis | Self::SessionWsRedis | Self::LimitHttpRedis | Self::LimitWsRedis => {
                Some((1.35, 1.2))
            }
            Self::Crowd => Some((1.5, 1.2)),
        }
    }
}

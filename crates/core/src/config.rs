//! Every setting of a node, typed, with its default. A section a struct, a key a field.
//!
//! Durations and sizes are written with their unit (`"5s"`, `"64KiB"`). Unknown keys are refused.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod mistakes;
mod network;
mod size;

pub use network::Network;
pub use size::{ByteSize, NoSize};

/// Durations as they are written in settings: `#[serde(with = "phalanx::config::duration")]`.
pub use humantime_serde as duration;

/// All settings of a node, section by section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What belongs to no other section.
    pub general: General,
    /// The cluster this node is a member of.
    pub cluster: Cluster,
    /// Where the nodes of a cluster keep what they share; its address is `REDIS_URL`.
    pub redis: Redis,
    /// HTTP.
    pub web: Web,
    /// WebSocket.
    pub websocket: Websocket,
    /// Rooms.
    pub rooms: RoomSettings,
    /// The listener for operators.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Files and folders.
    pub paths: Paths,
}

/// What belongs to no other section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// Node id for people and logs; empty means `<hostname>-<pid>`.
    pub id: String,
    /// First thing a socket hears.
    pub welcome: String,
    /// The deadline of an action that has none of its own; zero means none.
    #[serde(with = "humantime_serde")]
    pub action_deadline: Duration,
    /// How many actions of one socket may run at once; the next gets `too_many_pending`.
    pub simultaneous_actions: usize,
    /// How long a call to another node may take, unless the call says otherwise.
    #[serde(with = "humantime_serde")]
    pub rpc_timeout: Duration,
    /// What the nodes of a cluster know and nobody else: their messages are sealed with it. Outside development and
    /// test a cluster does not start with the default.
    pub server_token: String,
    /// A second token that is believed while one replaces the other; nothing is sealed with it.
    pub previous_server_token: String,
    /// How long running calls may go on once the node stops.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How long an initializer may take to be made ready, to start, and to stop; zero means without end.
    #[serde(with = "humantime_serde")]
    pub initializer_timeout: Duration,
    /// Names of params that never appear in a log, beside those marked `#[secret]`.
    pub secret_params: Vec<String>,
}

impl General {
    /// Everybody knows it.
    pub const DEFAULT_TOKEN: &str = "change-me";
}

impl Default for General {
    fn default() -> Self {
        Self {
            id: String::new(),
            welcome: "welcome".into(),
            action_deadline: Duration::from_secs(30),
            simultaneous_actions: 5,
            rpc_timeout: Duration::from_secs(5),
            server_token: Self::DEFAULT_TOKEN.into(),
            previous_server_token: String::new(),
            grace: Duration::from_secs(30),
            initializer_timeout: Duration::from_secs(60),
            secret_params: Vec::new(),
        }
    }
}

/// The cluster this node is a member of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Root of every channel and key of ours; empty means the application's name.
    pub name: String,
    /// Most calls that wait for other nodes, and most of theirs that run here; beyond, `unavailable`.
    pub max_calls: usize,
    /// Most bytes of a call's arguments, of its answer, and of what is published; beyond, `payload_too_large`.
    pub max_call: ByteSize,
    /// Whether Actionhero nodes are spoken with, on their own channel.
    pub interop: bool,
    /// Their channel.
    pub interop_channel: String,
    /// Their server token. It stands in every message there, so it must be neither `general.server_token`
    /// nor `general.previous_server_token`.
    pub interop_token: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            max_calls: 10_000,
            max_call: ByteSize::mib(1),
            interop: false,
            interop_channel: "actionhero".into(),
            interop_token: String::new(),
        }
    }
}

/// Where the nodes of a cluster keep what they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// How long a command may take; beyond, `unavailable`: whether it happened is unknown.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// How long a node that starts waits for Redis before it gives up.
    #[serde(with = "humantime_serde")]
    pub boot_timeout: Duration,
    /// Before the keys that are shared with Actionhero nodes: cache, locks and rooms.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(2),
            boot_timeout: Duration::from_secs(60),
            prefix: "actionhero:".into(),
        }
    }
}

/// HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on; 0 picks a free one and prints it.
    pub port: u16,
    /// First segments of every action's path.
    pub prefix: String,
    /// Most bytes of a request's body, files excepted.
    pub max_body: ByteSize,
    /// Most bytes of a request with files.
    pub max_upload: ByteSize,
    /// Most bytes of all files that wait for their requests; beyond, `unavailable`.
    pub max_uploads_total: ByteSize,
    /// Most files in one request; most other fields is ten times that.
    pub max_files: usize,
    /// Most bytes of a request's head.
    pub max_header_bytes: ByteSize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// How long a client may take to send a request's head.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a client may pause while it sends a body, and how long it may take beside what
    /// [`Web::min_body_rate`] grants.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Bytes of a body for which a client is granted a second more.
    pub min_body_rate: ByteSize,
    /// How long a client may take none of what waits for it; beyond, its connection is reset.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Most connections at once; beyond, new ones are closed at once.
    pub max_connections: usize,
    /// Most requests waiting or running at once; beyond, `unavailable`.
    pub max_requests: usize,
    /// Addresses, or networks such as `10.0.0.0/8`, whose forwarded headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Origins (`https://www.example.com`) that clients may call the node by; others are sent to the first. Empty means
    /// any.
    pub allowed_hosts: Vec<String>,
    /// Origins that may call from a browser page of another site; `*` means all, without cookies.
    pub cors_origins: Vec<String>,
    /// Name of the cookie that ties the calls and sockets of one browser together.
    pub fingerprint_cookie: String,
    /// How long that cookie lives.
    #[serde(with = "humantime_serde")]
    pub fingerprint_lifetime: Duration,
    /// Adds Secure to cookies and Strict-Transport-Security to answers: clients come over TLS.
    pub tls_in_front: bool,
    /// Adds `serverInformation` and `requesterInformation` to answers; unset means: in development only.
    pub metadata: Option<bool>,
    /// Compresses answers for clients that accept it.
    pub compress: bool,
    /// How long a client may keep a static file without asking.
    #[serde(with = "humantime_serde")]
    pub file_max_age: Duration,
    /// Writes one log line per request.
    pub access_log: bool,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            bind: IpAddr::from([0, 0, 0, 0]),
            port: 8080,
            prefix: "/api".into(),
            max_body: ByteSize::mib(1),
            max_upload: ByteSize::mib(200),
            max_uploads_total: ByteSize::gib(2),
            max_files: 16,
            max_header_bytes: ByteSize::kib(16),
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            min_body_rate: ByteSize::kib(64),
            write_timeout: Duration::from_secs(60),
            max_connections: 50_000,
            max_requests: 10_000,
            trusted_proxies: Vec::new(),
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            fingerprint_cookie: "sessionID".into(),
            fingerprint_lifetime: Duration::from_secs(3600),
            tls_in_front: false,
            metadata: None,
            compress: true,
            file_max_age: Duration::from_secs(60),
            access_log: true,
        }
    }
}

/// WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Websocket {
    /// Path of the endpoint.
    pub path: String,
    /// Most sockets at once; beyond, the upgrade is answered 503.
    pub max_connections: usize,
    /// Most bytes of a frame a client sends; beyond, close 1009.
    pub max_frame_bytes: ByteSize,
    /// Most frames waiting for a client; beyond, close 4001.
    pub outbox_frames: usize,
    /// Most bytes waiting for a client; beyond, close 4001. An answer that is larger itself is `payload_too_large`.
    pub outbox_bytes: ByteSize,
    /// Time between two pings; nothing heard in between means close 4002.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a close frame is tried before the connection is reset.
    #[serde(with = "humantime_serde")]
    pub close_timeout: Duration,
    /// Over how long the sockets of a stopping node are told to go.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Frames a second of one socket, pings too; beyond, `rate_limited`; 0 means no limit.
    pub messages_per_second: u32,
    /// How many verbs a socket may send at once after a pause.
    pub message_burst: u32,
    /// Upgrades a second of one address; beyond, 429; 0 means no limit.
    pub upgrades_per_second: u32,
    /// How many upgrades an address may ask at once after a pause.
    pub upgrade_burst: u32,
    /// Origins whose pages may open a socket, beside the node's own; `*` means all.
    pub allowed_origins: Vec<String>,
    /// Most rooms of one socket.
    pub max_rooms: usize,
    /// Most bytes of a connection's attributes.
    pub max_attributes: ByteSize,
    /// Most bytes of a `messageId`.
    pub max_message_id_bytes: usize,
    /// Most bytes of a file that goes over a socket.
    pub max_file: ByteSize,
}

impl Default for Websocket {
    fn default() -> Self {
        Self {
            path: "/ws".into(),
            max_connections: 50_000,
            max_frame_bytes: ByteSize::kib(64),
            outbox_frames: 1024,
            outbox_bytes: ByteSize::mib(1),
            heartbeat: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            drain: Duration::from_secs(5),
            messages_per_second: 20,
            message_burst: 100,
            upgrades_per_second: 100,
            upgrade_burst: 1000,
            allowed_origins: Vec::new(),
            max_rooms: 100,
            max_attributes: ByteSize::kib(16),
            max_message_id_bytes: 128,
            max_file: ByteSize::kib(512),
        }
    }
}

/// Rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomSettings {
    /// Rooms that exist from the start.
    pub start: Vec<String>,
    /// Rooms that tell their members who comes and goes.
    pub presence: Vec<String>,
    /// Most rooms that may exist; beyond, `conflict`.
    pub max_rooms: usize,
    /// Most bytes of one message.
    pub max_message: ByteSize,
    /// How many of its own messages a speaker may have undelivered on this node before it waits.
    pub max_undelivered: usize,
    /// How many messages may wait for delivery on this node. Beyond, publishers wait where it is alone; in a cluster
    /// messages are dropped and the gap is told.
    pub bus_queue: usize,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            presence: Vec::new(),
            max_rooms: 100_000,
            max_message: ByteSize::kib(64),
            max_undelivered: 512,
            bus_queue: 4096,
        }
    }
}

/// The listener for operators: `/livez`, `/readyz`, `/metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on, which must be free; [`Admin::AUTO`] means the usual one, or a free port if it is taken; empty
    /// means none.
    pub bind: String,
}

impl Admin {
    /// Leaves it to the node where to listen.
    pub const AUTO: &str = "auto";

    /// Where operators look unless told otherwise.
    pub const USUAL_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9100);
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Self::AUTO.into() }
    }
}

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

/// Files and folders, relative to the working directory unless the application says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Folders whose files everybody may read, first match wins.
    pub public: Vec<PathBuf>,
    /// Where the pid file goes.
    pub pid: PathBuf,
    /// Where log files go.
    pub log: PathBuf,
    /// Where uploads wait while their request runs; empty means the system's folder.
    pub uploads: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { public: vec!["public".into()], pid: "pids".into(), log: "log".into(), uploads: PathBuf::new() }
    }
}

/// Which of the three usual worlds a node lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(pub String);

impl Environment {
    /// The world of a laptop: metadata in answers, logs for people.
    pub fn is_development(&self) -> bool {
        self.0 == "development"
    }

    /// The world of users: no metadata, JSON logs, no default secrets.
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }
}

/// Where a node serves its browser client.
pub const CLIENT_PATHS: [&str; 2] = ["/phalanx-client.js", "/phalanx-client.d.ts"];

//! Checks across the settings that their types cannot express.

use std::time::Duration;

use super::web_origin::is_page_origin;
use super::{
    ByteSize, CLIENT_PATHS, ClusterSettings, Config, LimitSetting, TaskSettings, TrustedHeader, Web, WebOrigin,
    WorkerKind,
};

impl Config {
    /// Returns one sentence for each setting that cannot work, although its value is of the right type.
    pub fn mistakes(&self) -> Vec<String> {
        let (web, websocket, tasks) = (&self.web, &self.websocket, &self.tasks);
        let checks = [
            (is_plain_path(&web.prefix), "web.prefix must be a plain path that starts with `/`"),
            (is_plain_path(&websocket.path), "websocket.path must be a plain path that starts with `/`"),
            (web.max_body.as_u64() > 0, "web.max_body must not be zero"),
            (web.max_uploads_total >= web.max_upload, "web.max_uploads_total must hold one web.max_upload"),
            ((1..=1000).contains(&web.max_files), "web.max_files must be from 1 to 1000"),
            (web.max_headers > 0, "web.max_headers must not be zero"),
            (web.max_header_bytes >= ByteSize::kib(8), "web.max_header_bytes must be 8KiB at least"),
            (web.min_body_rate.as_u64() > 0, "web.min_body_rate must not be zero"),
            (
                web.allowed_hosts.iter().all(|origin| scheme_of(origin).is_some()),
                "web.allowed_hosts are origins, such as `https://www.example.com`",
            ),
            (
                !is_unreachable(web, "https"),
                "web.allowed_hosts has an https origin, and no request can be known to use https: set web.tls_in_front, \
                 or list the proxy in web.trusted_proxies and a header with the scheme in web.trusted_headers",
            ),
            (
                !is_unreachable(web, "http"),
                "web.allowed_hosts has an http origin, and web.tls_in_front means that all requests use https: remove \
                 one of them, or list the proxy in web.trusted_proxies and a header with the scheme in \
                 web.trusted_headers",
            ),
            (
                web.cors_origins.iter().all(|origin| origin == "*" || is_page_origin(origin)),
                "web.cors_origins are origins of pages, such as `https://www.example.com`, or `*`; never `null`",
            ),
            (
                websocket.allowed_origins.iter().all(|origin| origin == "*" || is_page_origin(origin)),
                "websocket.allowed_origins are origins of pages, such as `https://www.example.com`, or `*`; never `null`",
            ),
            (
                !CLIENT_PATHS.contains(&websocket.path.as_str()),
                "websocket.path must differ from the paths of the browser client",
            ),
            (!web.header_timeout.is_zero(), "web.header_timeout must not be zero"),
            (!web.body_timeout.is_zero(), "web.body_timeout must not be zero"),
            (!web.write_timeout.is_zero(), "web.write_timeout must not be zero"),
            (!web.linger_idle.is_zero(), "web.linger_idle must not be zero"),
            (!web.linger_timeout.is_zero(), "web.linger_timeout must not be zero"),
            (web.max_connections > 0, "web.max_connections must not be zero"),
            (web.max_requests > 0, "web.max_requests must not be zero"),
            (
                web.new_requests_share > 0.0 && web.new_requests_share <= 1.0,
                "web.new_requests_share must be more than 0, and 1 at most",
            ),
            (
                web.address_share > 0.0 && web.address_share <= 1.0,
                "web.address_share must be more than 0, and 1 at most",
            ),
            (web.max_waiting_bodies > 0, "web.max_waiting_bodies must not be zero"),
            (web.max_bodies_total >= web.max_body, "web.max_bodies_total must hold one web.max_body"),
            (is_token(&web.fingerprint_cookie), "web.fingerprint_cookie must be letters, digits, `-` and `_`"),
            (websocket.max_frame_bytes.as_u64() >= 1024, "websocket.max_frame_bytes must be 1KiB at least"),
            (websocket.outbox_frames > 0, "websocket.outbox_frames must not be zero"),
            (
                websocket.outbox_bytes.as_u64() / 4 * 3 > websocket.max_file.as_u64(),
                "websocket.outbox_bytes must hold a file of websocket.max_file as base64, a third larger than it is",
            ),
            (
                websocket.outbox_bytes.as_u64() >= self.rooms.max_message.as_u64() + crate::protocol::ENVELOPE,
                "websocket.outbox_bytes must hold a message of rooms.max_message, with 512 bytes around it",
            ),
            (!websocket.heartbeat.is_zero(), "websocket.heartbeat must not be zero"),
            (self.session.idle >= Duration::from_secs(1), "session.idle must be 1s at least"),
            (
                self.session.absolute >= self.session.idle,
                "session.absolute must be session.idle at least: a session would end before it is idle",
            ),
            (self.session.max_in_memory > 0, "session.max_in_memory must not be zero"),
            ((1..=128).contains(&self.limits.ipv6_prefix), "limits.ipv6_prefix must be from 1 to 128"),
            (self.limits.max_subjects > 0, "limits.max_subjects must not be zero"),
            (self.rooms.max_undelivered > 0, "rooms.max_undelivered must not be zero"),
            (
                !self.cluster.interop || !self.cluster.interop_token.is_empty(),
                "cluster.interop needs cluster.interop_token, the server token of the Actionhero nodes",
            ),
            (
                !self.cluster.interop
                    || self.cluster.interop_token.is_empty()
                    || ![&self.general.server_token, &self.general.previous_server_token]
                        .contains(&&self.cluster.interop_token),
                "cluster.interop_token must differ from general.server_token and general.previous_server_token, which \
                 must not be readable in Redis",
            ),
            (
                self.cluster.name.is_empty() || ClusterSettings::is_name(&self.cluster.name),
                "cluster.name must be 1 to 64 characters of A-Z a-z 0-9 . _ -, or such a name in braces",
            ),
            (!self.cluster.interop_channel.is_empty(), "cluster.interop_channel must not be empty"),
            (self.cluster.beat_timeout >= Duration::from_secs(2), "cluster.beat_timeout must be 2s at least"),
            (self.cluster.max_calls > 0, "cluster.max_calls must not be zero"),
            (!self.redis.command_timeout.is_zero(), "redis.command_timeout must not be zero"),
            (!self.general.server_token.is_empty(), "general.server_token must not be empty"),
            (self.rooms.bus_queue > 0, "rooms.bus_queue must not be zero"),
            (self.general.simultaneous_actions > 0, "general.simultaneous_actions must not be zero"),
            (tasks.concurrency <= TaskSettings::MAX_CONCURRENCY, "tasks.concurrency must be 10000 at most"),
            (!self.general.roles.is_empty(), "general.roles must name one of web, worker and scheduler"),
            (self.general.threads <= 1024, "general.threads must be 1024 at most"),
            (tasks.threads <= 1024, "tasks.threads must be 1024 at most"),
            (tasks.failed_max > 0, "tasks.failed_max must not be zero"),
            (tasks.replicas <= TaskSettings::MAX_REPLICAS, "tasks.replicas must be 16 at most"),
        ];
        let queues = tasks.served_queues().err().map(|error| format!("tasks.queues: {error}"));
        let wrong = checks.iter().filter(|(is_valid, _)| !is_valid).map(|(_, sentence)| (*sentence).to_owned());
        let of_limits = self.limits.named.iter().filter_map(|(name, setting)| match setting {
            LimitSetting::Rate(rate) => rate.mistake().map(|mistake| format!("limits.{name}: {mistake}")),
            LimitSetting::Off => None,
        });
        wrong.chain(queues).chain(WorkerKind::mistake(&self.cluster.processes)).chain(of_limits).collect()
    }
}

/// Returns the scheme of an origin that a node can have; `None` if it is not such an origin.
fn scheme_of(origin: &str) -> Option<&'static str> {
    let origin = WebOrigin::parse(origin)?;
    ["http", "https"].into_iter().find(|scheme| origin.has_scheme(scheme))
}

/// Whether an own origin has this scheme, and no request can ever have it: each would be redirected, for ever.
fn is_unreachable(web: &Web, scheme: &str) -> bool {
    let default = if web.tls_in_front { "https" } else { "http" };
    let with_scheme = [TrustedHeader::XForwardedProto, TrustedHeader::Forwarded];
    let is_reported =
        !web.trusted_proxies.is_empty() && web.trusted_headers.iter().any(|header| with_scheme.contains(header));
    scheme != default && !is_reported && web.allowed_hosts.iter().any(|origin| scheme_of(origin) == Some(scheme))
}

fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.starts_with('/') && path.bytes().all(plain)
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

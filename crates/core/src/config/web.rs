//! The section `web`: the HTTP listener, its limits and its headers.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::network::Network;
use super::size::ByteSize;
use super::trusted_header::TrustedHeader;

/// HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address to listen on; `localhost` is 127.0.0.1.
    #[serde(deserialize_with = "super::network::bind_ip")]
    pub bind: IpAddr,
    /// Port to listen on; 0 picks a free one and prints it.
    pub port: u16,
    /// Prefix of every action's path.
    pub prefix: String,
    /// Most bytes of a request's body, files excluded.
    pub max_body: ByteSize,
    /// Most bytes of a request with files.
    pub max_upload: ByteSize,
    /// Most bytes of all uploaded files of running requests; beyond, `unavailable`.
    pub max_uploads_total: ByteSize,
    /// Most files in one request; the limit of its other fields is ten times that.
    pub max_files: usize,
    /// Most bytes of a request's head: request line and headers.
    pub max_header_bytes: ByteSize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// Time that a client has to send a request's head.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Longest pause of a client that sends a body, and the time that the body may take in addition to what
    /// [`Web::min_body_rate`] grants.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Bytes of a body that extend the client's time by one second.
    pub min_body_rate: ByteSize,
    /// Longest time in which a client reads nothing while bytes wait for it; beyond, its connection is reset.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Longest pause of a client that goes on sending after its response, while its connection is being closed.
    #[serde(with = "humantime_serde")]
    pub linger_idle: Duration,
    /// Longest time for which such a client's bytes are read and discarded, [`Web::max_upload`] of them at most; beyond,
    /// its connection is reset, and it may lose its response.
    #[serde(with = "humantime_serde")]
    pub linger_timeout: Duration,
    /// Longest pause of an open connection between two requests while the node stops; beyond, it is closed.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Most open connections of a process; beyond, new ones are closed immediately. A worker of `start cluster` leaves them to
    /// the others, or in the queue of the listening socket until a place is free.
    pub max_connections: usize,
    /// Most requests whose code runs at the same time; beyond, `unavailable`. A request whose body is awaited is not
    /// one of them.
    pub max_requests: usize,
    /// Share of [`Web::max_requests`] that requests may take before their body was read. The rest is kept for those that
    /// come back with their body.
    pub new_requests_share: f64,
    /// Longest time that a request with its body waits for a permit among [`Web::max_requests`]; beyond, `unavailable`.
    #[serde(with = "humantime_serde")]
    pub resume_timeout: Duration,
    /// Most bodies that are awaited at the same time; beyond, `unavailable`.
    pub max_waiting_bodies: usize,
    /// Most bytes of bodies in memory; beyond, `unavailable`.
    pub max_bodies_total: ByteSize,
    /// Share of each bound on connections, requests, sockets, bodies that are awaited, bodies in memory and uploads that
    /// one address may take; at least one. An IPv6 address counts with its network of `limits.ipv6_prefix`.
    pub address_share: f64,
    /// Addresses, or networks such as `10.0.0.0/8`, whose [`Web::trusted_headers`] and `X-Request-Id` are accepted.
    pub trusted_proxies: Vec<Network>,
    /// Headers that are accepted from trusted proxies. Name those that every proxy sets itself: some hand on the
    /// `X-Forwarded-Host` that a client sent.
    pub trusted_headers: Vec<TrustedHeader>,
    /// Origins (`https://www.example.com`) under which clients may reach the node; requests for others are redirected
    /// to the first. Empty means any.
    pub allowed_hosts: Vec<String>,
    /// Origins of other sites whose pages may send requests; `*` means all, without cookies.
    pub cors_origins: Vec<String>,
    /// Whether requests that pages of other sites send are refused, or only counted and logged.
    pub cross_site: CrossSite,
    /// Name of the cookie that links the calls and sockets of one browser.
    pub fingerprint_cookie: String,
    /// `Max-Age` of that cookie.
    #[serde(with = "humantime_serde")]
    pub fingerprint_lifetime: Duration,
    /// Adds Secure to cookies and Strict-Transport-Security to answers: a proxy in front terminates TLS.
    pub tls_in_front: bool,
    /// Adds `serverInformation` and `requesterInformation` to answers; unset means: in development only.
    pub metadata: Option<bool>,
    /// Compresses answers for clients that accept it.
    pub compress: bool,
    /// Time that a client may reuse a static file without revalidating it.
    #[serde(with = "humantime_serde")]
    pub file_max_age: Duration,
    /// Writes one log line per request.
    pub access_log: bool,
}

/// The treatment of requests with unsafe methods that pages of other sites send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrossSite {
    /// They get 403.
    Refuse,
    /// They are counted and logged, and served.
    Report,
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
            linger_idle: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(2),
            max_connections: 50_000,
            max_requests: 10_000,
            new_requests_share: 0.875,
            resume_timeout: Duration::from_secs(1),
            max_waiting_bodies: 10_000,
            max_bodies_total: ByteSize::mib(256),
            address_share: 0.25,
            trusted_proxies: Vec::new(),
            trusted_headers: vec![TrustedHeader::XForwardedFor, TrustedHeader::XForwardedProto, TrustedHeader::XRealIp],
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            cross_site: CrossSite::Refuse,
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

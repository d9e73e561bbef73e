//! The section `admin`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

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

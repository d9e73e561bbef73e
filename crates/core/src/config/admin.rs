//! The section `admin`: the listener for operators.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::network::parse_addr;

/// The listener for operators: `/livez`, `/readyz`, `/metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on, which must be free; [`Admin::AUTO`] means [`Admin::USUAL_BIND`], or a free port if that
    /// is taken; empty means no listener.
    pub bind: String,
    /// Whether `/readyz` answers 503 while the node cannot count on its lease: no renewal was confirmed for 4 s.
    pub ready_needs_cluster: bool,
}

impl Admin {
    /// Lets the node choose the address.
    pub const AUTO: &str = "auto";

    /// The address that [`Admin::AUTO`] tries first.
    pub const USUAL_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9100);

    /// The address that is set, if it is one. [`Admin::AUTO`] is none.
    pub fn addr(&self) -> Option<SocketAddr> {
        parse_addr(&self.bind)
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Self::AUTO.into(), ready_needs_cluster: true }
    }
}

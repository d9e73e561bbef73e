//! IP addresses and networks in settings, and the addresses to listen on.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize};

/// An IP address, or a network of addresses with a common prefix: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in the network. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.parse().ok().and_then(without_mapping) {
            Some(network) => Ok(Self(network)),
            None => text.parse::<IpAddr>().map(Into::into),
        }
    }
}

/// The bits of an IPv6 address before an IPv4 address that is mapped into it.
const MAPPED_PREFIX: u8 = 96;

/// Turns a network of IPv4-mapped addresses into that of the IPv4 addresses. `None` if it also has addresses that are not
/// mapped ones: `contains` compares a mapped address by the IPv4 address inside, so that it would never match.
fn without_mapping(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return Some(network) };
    let Some(inside) = v6.addr().to_ipv4_mapped() else { return Some(network) };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(inside, prefix).ok().map(IpNet::V4)
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither an address nor a network such as 10.0.0.0/8"))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// Reads an IP address to listen on. It may be written as in a URL (`[::1]`) or as `localhost`.
pub(super) fn bind_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_ip(&text).ok_or_else(|| {
        let hint = match parse_addr(&text) {
            Some(_) => "the port has a setting of its own",
            None => "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost",
        };
        serde::de::Error::custom(format!("{text:?} is no address to listen on: {hint}"))
    })
}

/// Parses an IP address, `[::1]` or `localhost`. Other names are none: they may have several addresses, or none at boot.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    }
}

/// Parses the same with a port: `127.0.0.1:9100`, `[::1]:9100`, `localhost:9100`.
pub(super) fn parse_addr(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        host.eq_ignore_ascii_case("localhost").then_some(SocketAddr::new(parse_ip(host)?, port.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_the_one_of_the_ipv4_addresses_inside() {
        for (text, inside, outside, written) in [
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "::ffff:10.255.0.1", "::a00:1", "10.0.0.0/8"),
            ("::ffff:0:0/96", "1.2.3.4", "::1.2.3.4", "0.0.0.0/0"),
            ("::ffff:10.0.0.1/128", "10.0.0.1", "10.0.0.2", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside} is in {text}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside} is not in {text}");
            assert_eq!(network.to_string(), written);
        }
    }

    #[test]
    fn a_network_is_parsed_and_written_back_unchanged() {
        for (text, inside, outside) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "::ffff:10.255.0.1", "11.0.0.1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4", "::2"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside} is in {text}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside} is not in {text}");
            assert_eq!(serde_json::to_value(network).unwrap(), text);
        }
        for text in ["", "10.0.0", "10.0.0.0/33", "proxy.example", "::ffff:10.0.0.0/95", "::ffff:0:0/64"] {
            assert!(serde_json::from_value::<Network>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_on_may_be_written_as_in_a_url_or_as_localhost() {
        for (text, address) in [
            ("localhost", "127.0.0.1"),
            ("LOCALHOST", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::", "::"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(bind_ip(serde_json::Value::from(text)).unwrap(), address.parse::<IpAddr>().unwrap(), "{text}");
        }
        for (text, hint) in [
            ("127.0.0.1:8080", "the port has"),
            ("[::1]:8080", "the port has"),
            ("localhost:8080", "the port has"),
            ("example.org", "or localhost"),
            ("[127.0.0.1]", "or localhost"),
            ("*", "or localhost"),
            ("", "or localhost"),
            ("[::1", "or localhost"),
        ] {
            let error = bind_ip(serde_json::Value::from(text)).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn an_address_with_a_port_may_be_that_of_localhost() {
        for (text, expected) in [
            ("127.0.0.1:9100", Some("127.0.0.1:9100")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost:9100", Some("127.0.0.1:9100")),
            ("localhost", None),
            (":9100", None),
            ("9100", None),
            ("localhost:70000", None),
        ] {
            assert_eq!(parse_addr(text), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}

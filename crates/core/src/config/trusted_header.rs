//! The headers by which proxies describe the request that they forward.

use serde::{Deserialize, Serialize};

/// A header that `web.trusted_headers` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrustedHeader {
    /// `X-Forwarded-For`: the addresses of the client and of proxies.
    XForwardedFor,
    /// `X-Forwarded-Proto`: the scheme that the client uses.
    XForwardedProto,
    /// `X-Forwarded-Host`: the host that the client addressed.
    XForwardedHost,
    /// `X-Forwarded-Port`: the port that the client connected to.
    XForwardedPort,
    /// `X-Real-IP`: the address of the client.
    XRealIp,
    /// `Forwarded` of RFC 7239: all of these.
    Forwarded,
}

impl TrustedHeader {
    /// Every header.
    pub const ALL: [Self; 6] = [
        Self::XForwardedFor,
        Self::XForwardedProto,
        Self::XForwardedHost,
        Self::XForwardedPort,
        Self::XRealIp,
        Self::Forwarded,
    ];

    /// The name of the header, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::XForwardedProto => "x-forwarded-proto",
            Self::XForwardedHost => "x-forwarded-host",
            Self::XForwardedPort => "x-forwarded-port",
            Self::XRealIp => "x-real-ip",
            Self::Forwarded => "forwarded",
        }
    }
}

impl TryFrom<String> for TrustedHeader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|header| header.as_str().eq_ignore_ascii_case(&text));
        named.ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl From<TrustedHeader> for String {
    fn from(header: TrustedHeader) -> Self {
        header.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_named_without_case_and_others_are_refused() {
        for header in TrustedHeader::ALL {
            let upper = header.as_str().to_uppercase();
            assert_eq!(serde_json::from_value::<TrustedHeader>(upper.into()).unwrap(), header);
            assert_eq!(serde_json::to_value(header).unwrap(), header.as_str());
        }
        let refused = serde_json::from_value::<TrustedHeader>("x-forwarded-by".into()).unwrap_err().to_string();
        assert!(refused.contains("\"x-forwarded-by\" is none of") && refused.contains(", forwarded"), "{refused}");
    }
}

//! The section `limits`: rate limits, and the part of an address by which they count.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use humantime_serde::re::humantime::{format_duration, parse_duration};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Rate limits. Besides the keys of its own, the section has one for each limit of the application that shall have another
/// rate than in its code: `sign_in = "10/1m"`; `"0"` turns it off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitSettings {
    /// Length of the prefix of an IPv6 address that counts as one address, everywhere.
    pub ipv6_prefix: u8,
    /// Most subjects that a node counts in its own memory, and most of those over their limit that it remembers.
    pub max_subjects: usize,
    /// The limits that have another rate than in the code, by name.
    #[serde(flatten)]
    pub named: BTreeMap<String, LimitSetting>,
}

impl LimitSettings {
    /// The keys that are no limits.
    pub(crate) const KEYS: [&str; 2] = ["ipv6_prefix", "max_subjects"];

    /// The rate of a limit whose code says `rate`; `None` if it is turned off.
    pub fn rate_of(&self, name: &str, rate: LimitRate) -> Option<LimitRate> {
        // Variables of the environment have lost the case of their letters.
        let set = self.named.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        match set.map(|(_, setting)| setting) {
            None => Some(rate),
            Some(LimitSetting::Rate(rate)) => Some(*rate),
            Some(LimitSetting::Off) => None,
        }
    }

    /// The address by which one is counted: of IPv6 the network of `ipv6_prefix`, unless an IPv4 address is inside.
    pub fn subject_of(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
        if v6.is_loopback() {
            return v6.into();
        }
        match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into() // NAT64
            }
            _ => {
                let rest = 128_u32.saturating_sub(u32::from(self.ipv6_prefix));
                let network = u128::MAX.checked_shl(rest).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & network).into()
            }
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { ipv6_prefix: 64, max_subjects: 100_000, named: BTreeMap::new() }
    }
}

impl<'de> Deserialize<'de> for LimitSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section;

        impl<'de> Visitor<'de> for Section {
            type Value = LimitSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of limits")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LimitSettings, A::Error> {
                let mut settings = LimitSettings::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "ipv6_prefix" => settings.ipv6_prefix = map.next_value()?,
                        "max_subjects" => settings.max_subjects = map.next_value()?,
                        _ => drop(settings.named.insert(key, map.next_value()?)),
                    }
                }
                Ok(settings)
            }
        }

        deserializer.deserialize_map(Section)
    }
}

/// How many calls there may be in a time: `10/1m`. It holds for each stretch of that length, wherever it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRate {
    /// The most calls.
    pub calls: u32,
    /// The time.
    pub window: Duration,
}

impl LimitRate {
    /// The shortest window.
    pub const MIN_WINDOW: Duration = Duration::from_millis(100);

    /// The longest window.
    pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// Why a limit cannot have this rate.
    pub fn mistake(self) -> Option<&'static str> {
        if self.calls == 0 || self.window.is_zero() {
            Some("a limit of no calls, or of no time, lets nothing pass: `\"0\"` in [limits] turns it off")
        } else if self.window < Self::MIN_WINDOW || self.window > Self::MAX_WINDOW {
            Some("the time of a limit is from 100ms to 366 days")
        } else if !self.window.subsec_nanos().is_multiple_of(1_000_000) {
            Some("the time of a limit is in whole milliseconds")
        } else {
            None
        }
    }
}

impl fmt::Display for LimitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.calls, format_duration(self.window).to_string().replace(' ', ""))
    }
}

/// The setting of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitSetting {
    /// `"0"`: it holds nothing up.
    Off,
    /// `"10/1m"`.
    Rate(LimitRate),
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" {
            return Ok(Self::Off);
        }
        let parts = text.split_once('/').map(|(calls, window)| (calls.trim().parse(), parse_duration(window.trim())));
        let Some((Ok(calls), Ok(window))) = parts else {
            return Err(format!("{text:?} is no limit: write \"10/1m\" for 10 calls in a minute, or \"0\" for none"));
        };
        let rate = LimitRate { calls, window };
        rate.mistake().map_or(Ok(Self::Rate(rate)), |mistake| Err(format!("{text:?}: {mistake}")))
    }
}

impl TryFrom<String> for LimitSetting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LimitSetting> for String {
    fn from(setting: LimitSetting) -> Self {
        match setting {
            LimitSetting::Off => "0".to_owned(),
            LimitSetting::Rate(rate) => rate.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_limit_is_written_as_calls_in_a_time_and_zero_turns_it_off() {
        let rate = |calls, seconds| LimitSetting::Rate(LimitRate { calls, window: Duration::from_secs(seconds) });
        for (text, setting, written) in [
            ("10/1m", rate(10, 60), "10/1m"),
            ("1 / 90s", rate(1, 90), "1/1m30s"),
            ("4000000000/1day", rate(4_000_000_000, 86_400), "4000000000/1day"),
            ("0", LimitSetting::Off, "0"),
        ] {
            assert_eq!(text.parse(), Ok(setting), "{text}");
            assert_eq!(String::from(setting), written);
            assert_eq!(written.parse(), Ok(setting), "{written}");
        }
        for text in ["", "10", "10/", "/1m", "10/1", "-1/1m", "1.5/1m", "10 in 1m", "5000000000/1m"] {
            assert!(text.parse::<LimitSetting>().is_err_and(|error| error.contains("is no limit")), "{text}");
        }
        for text in ["0/1m", "10/0s"] {
            assert!(text.parse::<LimitSetting>().is_err_and(|error| error.contains("turns it off")), "{text}");
        }
        for text in ["10/99ms", "10/367days"] {
            assert!(text.parse::<LimitSetting>().is_err_and(|error| error.contains("from 100ms")), "{text}");
        }
        assert!("10/100ms 500us".parse::<LimitSetting>().is_err_and(|error| error.contains("whole milliseconds")));
    }

    #[test]
    fn a_setting_means_a_limit_whatever_the_case_of_its_letters() {
        let rate = LimitRate { calls: 9, window: Duration::from_secs(1) };
        let named = [("signin".to_owned(), LimitSetting::Off)].into_iter().collect();
        let settings = LimitSettings { named, ..LimitSettings::default() };
        assert_eq!((settings.rate_of("signIn", rate), settings.rate_of("sign_in", rate)), (None, Some(rate)));
    }

    #[test]
    fn an_address_counts_by_its_ipv4_address_or_its_ipv6_network() {
        let check = |ipv6_prefix, address: &str, subject: &str| {
            let settings = LimitSettings { ipv6_prefix, ..LimitSettings::default() };
            let address = address.parse().unwrap();
            assert_eq!(settings.subject_of(address), subject.parse::<IpAddr>().unwrap(), "{address} /{ipv6_prefix}");
        };
        for (address, subject) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("64:ff9b::203.0.113.7", "203.0.113.7"),
            ("64:ff9b:1::1", "64:ff9b:1::"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            check(64, address, subject);
        }
        check(56, "2001:db8:1:2ff:3::1", "2001:db8:1:200::");
        check(128, "2001:db8::1", "2001:db8::1");
        check(1, "2001:db8::1", "::");
    }

    #[test]
    fn ten_thousand_addresses_of_one_network_count_as_one() {
        let settings = LimitSettings::default();
        let network: Ipv6Addr = "2001:db8:0:1::".parse().unwrap();
        let host = |number: u64| IpAddr::from(Ipv6Addr::from_bits(network.to_bits() | u128::from(number)));
        // From all over the 64 bits of a host.
        let hosts = (0..10_000).map(|number: u64| host(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let subjects: HashSet<IpAddr> = hosts.map(|host| settings.subject_of(host)).collect();
        assert_eq!(subjects, HashSet::from([IpAddr::from(network)]));
    }

    #[test]
    fn the_section_has_keys_of_its_own_and_the_names_of_limits() {
        let written = serde_json::json!({"ipv6_prefix": 56, "sign_in": "10/1m", "search": "0"});
        let read: LimitSettings = serde_json::from_value(written).unwrap();
        assert_eq!((read.ipv6_prefix, read.max_subjects), (56, 100_000));
        let code = LimitRate { calls: 3, window: Duration::from_secs(1) };
        let minute = LimitRate { calls: 10, window: Duration::from_secs(60) };
        assert_eq!(read.rate_of("sign_in", code), Some(minute));
        assert_eq!((read.rate_of("search", code), read.rate_of("other", code)), (None, Some(code)));
        let again: LimitSettings = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
        assert!(serde_json::from_value::<LimitSettings>(serde_json::json!({"ipv6_prefx": 56})).is_err());
        for name in LimitSettings::KEYS {
            assert!(serde_json::to_value(LimitSettings::default()).unwrap().get(name).is_some(), "{name}");
        }
    }
}

//! Settings of a Redis server that operators choose.

use std::collections::HashMap;

use deadpool_redis::redis::cmd;

use crate::client::RedisClient;

/// Settings of the server; `None` for those that its user must not read, and those that it has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFacts {
    /// The version of Redis, or the one that a compatible server claims.
    pub version: Option<String>,
    /// Most bytes of its data; `0` for no bound.
    pub max_memory: Option<String>,
    /// The keys that it evicts when it is full.
    pub policy: Option<String>,
    /// Whether it appends changes to a file: `0` or `1`.
    pub appends: Option<String>,
    /// When it saves snapshots; empty for never.
    pub save: Option<String>,
}

impl ServerFacts {
    /// Reads what the user may read. A refusal is no fault.
    pub(crate) async fn read(client: &RedisClient) -> Self {
        // Before 7.0 INFO takes one section.
        let sections = ["server", "memory", "persistence"].map(|section| cmd("INFO").arg(section).to_owned());
        let [server, memory, persistence] = &sections;
        let (server, memory, persistence) = tokio::join!(
            client.probe::<String>(server),
            client.probe::<String>(memory),
            client.probe::<String>(persistence)
        );
        let [server, memory, persistence] = [server, memory, persistence].map(Option::unwrap_or_default);
        let owned = |info: &str, name| field(info, name).map(str::to_owned);
        let mut facts = Self {
            version: owned(&server, "redis_version"),
            max_memory: owned(&memory, "maxmemory"),
            policy: owned(&memory, "maxmemory_policy"),
            appends: owned(&persistence, "aof_enabled"),
            save: None,
        };
        let settings: Option<HashMap<String, String>> = match facts.appends.as_deref() {
            Some("0") => client.probe(cmd("CONFIG").arg("GET").arg("save")).await,
            _ => None,
        };
        facts.save = settings.and_then(|mut settings| settings.remove("save"));
        facts
    }
}

/// The value of a field in a reply of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Memory\r\nmaxmemory_human:0B\r\nmaxmemory:5\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((field(info, "maxmemory"), field(info, "maxmemory_policy")), (Some("5"), Some("noeviction")));
        assert_eq!((field(info, "aof_enabled"), field("", "maxmemory")), (None, None));
    }
}

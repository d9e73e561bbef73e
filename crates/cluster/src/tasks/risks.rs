//! Settings of Redis by which it loses jobs: it evicts them when it is full, or has them in memory only.

use std::collections::HashMap;

use deadpool_redis::redis::cmd;
use tokio::time;

use super::RedisTasks;

/// The most characters of a value of Redis that a warning repeats.
const SHOWN: usize = 32;

/// Settings of the server; `None` for those that its user must not read, and those that it has not.
#[derive(Default)]
struct ServerFacts<'a> {
    max_memory: Option<&'a str>,
    policy: Option<&'a str>,
    appends: Option<&'a str>,
    /// When it saves snapshots; empty for never.
    save: Option<&'a str>,
}

impl RedisTasks {
    pub(super) async fn find_risks(&self) -> Vec<String> {
        // One limit for all of it.
        time::timeout(self.shared.timeout(), self.read_risks()).await.unwrap_or_default()
    }

    async fn read_risks(&self) -> Vec<String> {
        // Before 7.0 INFO takes one section.
        let [memory, persistence] = ["memory", "persistence"].map(|section| cmd("INFO").arg(section).to_owned());
        let (memory, persistence) =
            tokio::join!(self.shared.probe::<String>(&memory), self.shared.probe::<String>(&persistence));
        let [memory, persistence] = [memory, persistence].map(Option::unwrap_or_default);
        let mut facts = ServerFacts {
            max_memory: field(&memory, "maxmemory"),
            policy: field(&memory, "maxmemory_policy"),
            appends: field(&persistence, "aof_enabled"),
            save: None,
        };
        let settings: Option<HashMap<String, String>> = match facts.appends {
            Some("0") => self.shared.probe(cmd("CONFIG").arg("GET").arg("save")).await,
            _ => None,
        };
        facts.save = settings.as_ref().and_then(|settings| settings.get("save")).map(String::as_str);
        facts.risks()
    }
}

impl ServerFacts<'_> {
    fn risks(&self) -> Vec<String> {
        let mut risks = Vec::new();
        if let (Some(max), Some(policy)) = (self.max_memory, self.policy)
            && max != "0"
            && policy != "noeviction"
        {
            let policy: String = policy.chars().take(SHOWN).collect();
            risks.push(format!(
                "jobs may be lost: a full Redis evicts them, and the leases of nodes; set its maxmemory-policy to \
                 noeviction, it is {policy}"
            ));
        }
        match (self.appends, self.save.map(str::trim)) {
            (Some("0"), Some("")) => risks.push(
                "jobs may be lost: Redis keeps them in memory only, and they end with it; set its appendonly to yes"
                    .to_owned(),
            ),
            (Some("0"), None) => risks.push(
                "jobs may be lost: Redis appends no changes to a file, and does not tell whether it saves snapshots; \
                 set its appendonly to yes"
                    .to_owned(),
            ),
            _ => {}
        }
        risks
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
    fn only_risks_that_were_read_are_named() {
        let memory = |max, policy| ServerFacts { max_memory: Some(max), policy: Some(policy), ..Default::default() };
        let disk = |appends, save| ServerFacts { appends: Some(appends), save, ..Default::default() };
        for (facts, named) in [
            (ServerFacts::default(), ""),
            (memory("0", "allkeys-lru"), ""),
            (memory("1000", "noeviction"), ""),
            (memory("1000", "volatile-ttl"), "it is volatile-ttl"),
            (ServerFacts { max_memory: Some("1000"), ..Default::default() }, ""),
            (disk("1", None), ""),
            (disk("1", Some("")), ""),
            (disk("0", Some("3600 1 300 100")), ""),
            (disk("0", Some("")), "in memory only"),
            (disk("0", None), "does not tell whether it saves snapshots"),
            (disk("?", None), ""),
        ] {
            let risks = facts.risks();
            assert_eq!(risks.len(), usize::from(!named.is_empty()), "{named}: {risks:?}");
            assert!(risks.iter().all(|risk| risk.contains(named)), "{risks:?}");
        }
        let long = memory("1", &"x".repeat(1000)).risks().remove(0);
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Memory\r\nmaxmemory_human:0B\r\nmaxmemory:5\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((field(info, "maxmemory"), field(info, "maxmemory_policy")), (Some("5"), Some("noeviction")));
        assert_eq!((field(info, "aof_enabled"), field("", "maxmemory")), (None, None));
    }
}

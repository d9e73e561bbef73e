//! Settings of Redis by which it loses jobs: it evicts them when it is full, or has them in memory only.

use tokio::time;

use super::RedisTasks;
use crate::server_facts::ServerFacts;

/// The most characters of a value of Redis that a warning repeats.
const SHOWN: usize = 32;

impl RedisTasks {
    pub(super) async fn find_risks(&self) -> Vec<String> {
        // One limit for all of it.
        let read = time::timeout(self.shared.timeout(), ServerFacts::read(&self.shared)).await;
        read.map(|facts| risks(&facts)).unwrap_or_default()
    }
}

fn risks(facts: &ServerFacts) -> Vec<String> {
    let mut risks = Vec::new();
    if let (Some(max), Some(policy)) = (facts.max_memory.as_deref(), facts.policy.as_deref())
        && max != "0"
        && policy != "noeviction"
    {
        let policy: String = policy.chars().take(SHOWN).collect();
        risks.push(format!(
            "jobs may be lost: a full Redis evicts them, and the leases of nodes; set its maxmemory-policy to \
                 noeviction, it is {policy}"
        ));
    }
    match (facts.appends.as_deref(), facts.save.as_deref().map(str::trim)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_risks_that_were_read_are_named() {
        let text = |text: &str| Some(text.to_owned());
        let memory = |max, policy| ServerFacts { max_memory: text(max), policy: text(policy), ..Default::default() };
        let disk = |appends, save: Option<&str>| ServerFacts {
            appends: text(appends),
            save: save.map(str::to_owned),
            ..Default::default()
        };
        for (facts, named) in [
            (ServerFacts::default(), ""),
            (memory("0", "allkeys-lru"), ""),
            (memory("1000", "noeviction"), ""),
            (memory("1000", "volatile-ttl"), "it is volatile-ttl"),
            (ServerFacts { max_memory: text("1000"), ..Default::default() }, ""),
            (disk("1", None), ""),
            (disk("1", Some("")), ""),
            (disk("0", Some("3600 1 300 100")), ""),
            (disk("0", Some("")), "in memory only"),
            (disk("0", None), "does not tell whether it saves snapshots"),
            (disk("?", None), ""),
        ] {
            let risks = risks(&facts);
            assert_eq!(risks.len(), usize::from(!named.is_empty()), "{named}: {risks:?}");
            assert!(risks.iter().all(|risk| risk.contains(named)), "{risks:?}");
        }
        let long = risks(&memory("1", &"x".repeat(1000))).remove(0);
        assert!(long.len() < 200, "{long}");
    }
}

//! Checks of Redis.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use phalanx_cluster::{RedisDiagnosis, RefusedCommand, ServerFacts};

use super::CheckStatus::{Fail, Ok as Fine, Warn};
use super::{Check, Finding};
use crate::app::{App, redis_of};
use crate::settings::{Settings, without_password};

/// The oldest Redis that suffices.
const OLDEST: (u32, u32) = (6, 2);

/// How far the clocks may differ: times of jobs and cookies are those of the machine, deadlines those of Redis.
const CLOCK_DIFFERENCE_MS: i64 = 1000;

const NAMES: [&str; 7] =
    ["redis", "redis version", "redis eviction", "redis persistence", "redis rights", "redis clock", "redis prefix"];

pub(super) fn checks(app: &App, settings: &Arc<Settings>) -> Vec<Check> {
    let opened = redis_of(app.name(), settings).map_err(|error| error.to_string()).and_then(|redis| {
        let Some((url, cluster)) = redis else { return Ok(None) };
        let diagnosis = RedisDiagnosis::open(url, cluster, &settings.config);
        diagnosis.map(|diagnosis| Some((diagnosis, without_password(url)))).map_err(|error| error.to_string())
    });
    match opened {
        Ok(Some((diagnosis, url))) => of(&diagnosis, url, &settings.config.redis.prefix),
        Ok(None) => {
            NAMES.map(|name| known(name, Finding::skipped("the embedded backend", "REDIS_URL for a cluster"))).into()
        }
        Err(reason) => {
            let mut all =
                vec![known(NAMES[0], Finding::new(Fail, reason, "REDIS_URL and settings that fit a cluster"))];
            all.extend(NAMES[1..].iter().map(|name| known(name, Finding::skipped(NOT_REACHED, ""))));
            all
        }
    }
}

const GUIDE: &str = "the page cluster of the guide has the rights of a node";

const NOT_REACHED: &str = "Redis is not reached";

/// A check whose result is known.
fn known(name: &'static str, finding: Finding) -> Check {
    Check { name, run: Box::pin(async { finding }) }
}

fn of(diagnosis: &RedisDiagnosis, url: String, prefix: &str) -> Vec<Check> {
    let facts = {
        let diagnosis = diagnosis.clone();
        async move { diagnosis.facts().await }.boxed().shared()
    };
    let of_facts = |name, judge: fn(&ServerFacts) -> Finding| {
        let facts = facts.clone();
        let run = async move { facts.await.map_or_else(|_| Finding::skipped(NOT_REACHED, ""), |facts| judge(&facts)) };
        Check { name, run: run.boxed() }
    };
    let [reached, refusals, clock, others] = [(); 4].map(|()| diagnosis.clone());
    let prefix = prefix.to_owned();
    vec![
        Check { name: NAMES[0], run: reach(reached, url).boxed() },
        of_facts(NAMES[1], version),
        of_facts(NAMES[2], eviction),
        of_facts(NAMES[3], persistence),
        Check { name: NAMES[4], run: rights(refusals).boxed() },
        Check { name: NAMES[5], run: async move { clock_of(clock.clock_ahead_ms().await) }.boxed() },
        Check { name: NAMES[6], run: async move { clusters(others.other_clusters().await, &prefix) }.boxed() },
    ]
}

async fn reach(diagnosis: RedisDiagnosis, url: String) -> Finding {
    match diagnosis.ping().await {
        Ok(time) => Finding::new(Fine, format!("{url} replies in {:.1} ms", time.as_secs_f64() * 1000.0), "a reply"),
        Err(reason) => Finding::new(Fail, format!("{url}: {reason}"), "a reply")
            .remedy("start Redis, or correct REDIS_URL; nodes wait for it for redis.boot_timeout"),
    }
}

fn version(facts: &ServerFacts) -> Finding {
    let wanted = format!("{}.{} or later", OLDEST.0, OLDEST.1);
    let Some(version) = &facts.version else {
        return Finding::skipped("the user may not INFO", wanted).remedy("give it +info");
    };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let status = if found >= OLDEST { Fine } else { Fail };
    Finding::new(status, version, wanted).remedy("upgrade Redis")
}

fn eviction(facts: &ServerFacts) -> Finding {
    let wanted = "noeviction";
    let (Some(policy), Some(max)) = (&facts.policy, &facts.max_memory) else {
        return Finding::skipped("the user may not INFO", wanted).remedy("give it +info");
    };
    if max == "0" {
        return Finding::new(Fine, format!("{policy}, and no maxmemory"), wanted);
    }
    let status = if policy == wanted { Fine } else { Warn };
    Finding::new(status, policy, wanted)
        .remedy("a full Redis evicts jobs, rooms and leases: CONFIG SET maxmemory-policy noeviction")
}

fn persistence(facts: &ServerFacts) -> Finding {
    let wanted = "appendonly yes";
    let remedy = "jobs and rooms end with Redis: CONFIG SET appendonly yes";
    match (facts.appends.as_deref(), facts.save.as_deref().map(str::trim)) {
        (Some("1"), _) => Finding::new(Fine, "appendonly yes", wanted),
        (Some("0"), Some("")) => Finding::new(Warn, "nothing is written to disk", wanted).remedy(remedy),
        (Some("0"), Some(save)) => Finding::new(Warn, format!("snapshots (save {save})"), wanted)
            .remedy("what came after the last one is lost"),
        (Some("0"), None) => Finding::new(Warn, "appendonly no", wanted).remedy(remedy),
        _ => Finding::skipped("the user may not INFO", wanted).remedy("give it +info"),
    }
}

async fn rights(diagnosis: RedisDiagnosis) -> Finding {
    let wanted = "every command of a node";
    match diagnosis.refusals().await {
        Ok(refusals) if refusals.is_empty() => Finding::new(Fine, "every command of a node runs", wanted),
        Ok(refusals) => {
            let found = refusals.iter().map(|RefusedCommand { command, reply, .. }| format!("{command}: {reply}"));
            let advice: BTreeSet<_> = refusals.iter().map(|refused| refused.advice.clone()).collect();
            let advice: Vec<_> = advice.into_iter().filter(|advice| !advice.is_empty()).collect();
            let remedy = if advice.is_empty() { GUIDE.to_owned() } else { shortened(&advice) };
            Finding::new(Fail, shortened(&found.collect::<Vec<_>>()), wanted).remedy(remedy)
        }
        Err(error) => Finding::skipped(error, wanted),
    }
}

/// The first of them, and the number of the others.
fn shortened(all: &[String]) -> String {
    let first: Vec<&str> = all.iter().take(3).map(String::as_str).collect();
    match all.len() - first.len() {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

fn clock_of(ahead_ms: Result<i64, String>) -> Finding {
    let wanted = format!("at most {CLOCK_DIFFERENCE_MS} ms");
    match ahead_ms {
        Ok(ahead) => {
            let status = if ahead.saturating_abs() <= CLOCK_DIFFERENCE_MS { Fine } else { Warn };
            Finding::new(status, format!("{ahead} ms ahead of this machine"), wanted)
                .remedy("let NTP set both clocks: jobs are delayed by the clock of Redis")
        }
        Err(error) => Finding::skipped(error, wanted),
    }
}

fn clusters(others: Result<Vec<String>, String>, prefix: &str) -> Finding {
    let wanted = "no other cluster";
    match others {
        Ok(others) if others.is_empty() => Finding::new(Fine, format!("{prefix} is of this cluster alone"), wanted),
        Ok(others) => Finding::new(Warn, format!("{prefix} is also of {}", others.join(", ")), wanted)
            .remedy("they share cache, locks and rooms: give each its own redis.prefix"),
        Err(error) => Finding::skipped(error, wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::Skipped;
    use super::*;

    fn facts(change: impl FnOnce(&mut ServerFacts)) -> ServerFacts {
        let mut facts = ServerFacts::default();
        change(&mut facts);
        facts
    }

    #[test]
    fn facts_are_judged_and_what_cannot_be_read_is_skipped() {
        let text = |text: &str| Some(text.to_owned());
        for (version_of, status) in [
            (text("7.0.15"), Fine),
            (text("6.2.0"), Fine),
            (text("6.0.16"), Fail),
            (text("10.1"), Fine),
            (text("?"), Fail),
            (None, Skipped),
        ] {
            assert_eq!(version(&facts(|facts| facts.version = version_of.clone())).status, status, "{version_of:?}");
        }
        for (max, policy, status) in [
            (text("0"), text("allkeys-lru"), Fine),
            (text("9"), text("noeviction"), Fine),
            (text("9"), text("allkeys-lru"), Warn),
            (None, None, Skipped),
        ] {
            let facts = facts(|facts| (facts.max_memory, facts.policy) = (max, policy));
            assert_eq!(eviction(&facts).status, status, "{facts:?}");
        }
        for (appends, save, status) in [
            (text("1"), None, Fine),
            (text("0"), text(""), Warn),
            (text("0"), text("3600 1"), Warn),
            (text("0"), None, Warn),
            (None, None, Skipped),
        ] {
            let facts = facts(|facts| (facts.appends, facts.save) = (appends, save));
            assert_eq!(persistence(&facts).status, status, "{facts:?}");
        }
        assert_eq!(clock_of(Ok(-1001)).status, Warn);
        assert_eq!(clock_of(Ok(1000)).status, Fine);
    }

    #[test]
    fn a_finding_has_a_remedy_unless_all_is_well() {
        let bad = clusters(Ok(vec!["shop".into()]), "actionhero:");
        assert!(bad.found.contains("shop") && bad.remedy.contains("redis.prefix"), "{bad:?}");
        assert_eq!(clusters(Ok(vec![]), "actionhero:").remedy, "");
        let many: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        assert_eq!(shortened(&many), "0; 1; 2; and 2 more");
        assert_eq!(shortened(&many[..2]), "0; 1");
    }
}

//! `doctor`.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_testkit::{Redis, check_time};
use serde_json::Value;
use tokio::time::Instant;

use super::{assert_same_keys, document, tour};

/// Settings that any machine fits.
const SMALL: [(&str, &str); 4] = [
    ("PHALANX__WEB__MAX_CONNECTIONS", "10"),
    ("PHALANX__WEBSOCKET__MAX_CONNECTIONS", "10"),
    ("PHALANX__WEB__MAX_BODIES_TOTAL", "4MiB"),
    ("PHALANX__TASKS__CONCURRENCY", "1"),
];

/// Runs all checks; returns the exit code, and the checks by their names.
async fn examine(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, BTreeMap<String, Value>) {
    let output = tour(&[&["doctor", "--json"], arguments].concat(), &[&SMALL, environment].concat()).await;
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_same_keys(&document, "doctor");
    assert_eq!(document["ok"], output.status.success(), "{document}");
    let checks = document["checks"].as_array().unwrap().iter();
    (output.status.code(), checks.map(|check| (check["check"].as_str().unwrap().to_owned(), check.clone())).collect())
}

fn status<'a>(checks: &'a BTreeMap<String, Value>, name: &str) -> &'a str {
    checks[name]["status"].as_str().unwrap()
}

#[tokio::test]
async fn a_redis_that_fits_is_found_well_and_nothing_stays_in_it() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (code, checks) = examine(&[], &[("REDIS_URL", &url)]).await;
    assert_eq!(code, Some(0), "{checks:?}");
    let of_redis = ["redis", "redis rights", "redis clock", "redis prefix"];
    assert_eq!(of_redis.map(|name| status(&checks, name)), ["ok"; 4], "{checks:?}");
    // The user of the tests may not read settings.
    assert_eq!(status(&checks, "redis version"), "skipped", "{checks:?}");
    let machine = ["web port", "admin port", "paths", "open files", "memory", "time zones"];
    assert_eq!(machine.map(|name| status(&checks, name)), ["ok"; 6], "{checks:?}");
    assert!(!checks["redis"]["found"].as_str().unwrap().contains(":phalanx@"), "{checks:?}");
    assert_eq!(redis.command("DBSIZE").await, ":0\r\n");

    let all = format!("redis://{}", redis.addr());
    redis.command("ACL SETUSER default on nopass ~* &* +@all").await;
    redis.command("HSET actionhero:phalanx:clusters shop 99999999999").await;
    let (code, checks) = examine(&[], &[("REDIS_URL", &all)]).await;
    assert_eq!((code, status(&checks, "redis version")), (Some(0), "ok"), "{checks:?}");
    assert_eq!(status(&checks, "redis eviction"), "ok", "{checks:?}");
    assert_eq!(checks["redis prefix"]["found"], "actionhero: is also of shop");
    let (code, _) = examine(&["--strict"], &[("REDIS_URL", &all)]).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn missing_rights_a_redis_that_is_away_and_one_that_hangs_are_failures() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER bob on >word ~actionhero:* ~phalanx:tour:* ~resque:* &tour:* +@all -lpos -info").await;
    let bob = format!("redis://bob:word@{}", redis.addr());
    let (code, checks) = examine(&[], &[("REDIS_URL", &bob)]).await;
    let rights = &checks["redis rights"];
    assert_eq!((code, status(&checks, "redis rights")), (Some(1), "fail"), "{checks:?}");
    let found = rights["found"].as_str().unwrap();
    assert!(found.starts_with("LPOS: NOPERM") && !found.contains("GET"), "{found}");
    let remedy = rights["remedy"].as_str().unwrap();
    assert!(remedy.contains("+lpos") && remedy.contains("the channels &tour &tour:*"), "{rights}");

    let (code, checks) = examine(&[], &[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    assert_eq!((code, status(&checks, "redis"), status(&checks, "redis rights")), (Some(1), "fail", "skipped"));
    let (code, checks) = examine(&[], &[("REDIS_URL", &bob), ("PHALANX_ENV", "production")]).await;
    assert_eq!((code, status(&checks, "redis")), (Some(1), "fail"), "{checks:?}");
    assert!(checks["redis"]["found"].as_str().unwrap().contains("general.server_token"), "{checks:?}");

    redis.freeze();
    let start = Instant::now();
    let (code, checks) = examine(&[], &[("REDIS_URL", &bob)]).await;
    check_time("all checks with a frozen Redis", Duration::from_secs(5), start.elapsed());
    assert_eq!((code, status(&checks, "redis")), (Some(1), "fail"), "{checks:?}");
    redis.thaw();
}

#[tokio::test]
async fn another_clock_warns() {
    let redis = Redis::start_with_clock().await;
    redis.set_clock(3600);
    let (code, checks) = examine(&[], &[("REDIS_URL", &redis.url())]).await;
    assert_eq!((code, status(&checks, "redis clock")), (Some(0), "warn"), "{checks:?}");
}

#[tokio::test]
async fn a_port_in_use_and_folders_that_cannot_be_written_are_found() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, checks) = examine(&[], &[("PORT", &port), ("PHALANX__PATHS__PID", "/dev/null/pids")]).await;
    assert_eq!(
        (code, status(&checks, "web port"), status(&checks, "paths")),
        (Some(1), "skipped", "fail"),
        "{checks:?}"
    );
    assert_eq!(status(&checks, "redis"), "skipped", "{checks:?}");
    let text = super::print(&["doctor"], &SMALL).await;
    assert!(text.lines().any(|line| line.starts_with("ok ") && line.contains("  time zones  ")), "{text}");
    document(&["doctor"], &SMALL, "doctor").await;
}

//! `start --check` and `config --origins`.

use phalanx_testkit::Process;

use super::{document, fail, print};

#[tokio::test]
async fn a_check_reaches_neither_the_port_nor_redis() {
    let node = Process::start("tour", &[]).await;
    let port = node.addr.port().to_string();
    let environment = [("PORT", &*port), ("REDIS_URL", "redis://127.0.0.1:1"), ("PHALANX_ENV", "test")];
    let line = print(&["start", "--check"], &environment).await;
    assert!(line.starts_with("ok: tour ") && line.contains(", environment test: "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[tokio::test]
async fn a_check_that_fails_says_why_with_exit_code_1() {
    for (variable, value, reason) in [
        ("PHALANX__WEB__PROT", "80", "PHALANX__WEB__PROT: there is no setting web.prot; did you mean web.port?"),
        ("PHALANX__LOG__LEVEL", "tour=loud", "log.level \"tour=loud\""),
        ("PHALANX__PATHS__PID", "/dev/null/pids", "paths.pid: /dev/null is no folder"),
        ("PHALANX__PATHS__PUBLIC", "/nowhere", "paths.public: /nowhere does not exist"),
        ("PHALANX__ADMIN__BIND", "here", "admin.bind \"here\" is no address"),
        ("REDIS_URL", "rediss://host:port", "REDIS_URL cannot be used"),
    ] {
        let failed = fail(1, &["start", "--check"], &[(variable, value)]).await;
        assert!(failed.starts_with("error: ") && failed.contains(reason), "{variable}: {failed}");
        assert_eq!(failed.lines().count(), 1, "{variable}: {failed}");
    }
}

#[tokio::test]
async fn origins_are_printed_for_people_and_for_programs() {
    let environment = [("PHALANX__GENERAL__SERVER_TOKEN", "hunter2"), ("PHALANX_ENV", "test")];
    let settings = document(&["config", "--origins", "--title", "me"], &environment, "origins").await;
    let settings = settings["settings"].as_array().unwrap();
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting["setting"] == name).unwrap();
        [&setting["value"], &setting["origin"]].map(|text| text.as_str().unwrap())
    };
    assert_eq!(of("general.server_token"), ["[HIDDEN]", "PHALANX__GENERAL__SERVER_TOKEN"]);
    assert_eq!((of("node"), of("environment")), (["me", "--title"], ["test", "PHALANX_ENV"]));
    assert_eq!((of("web.bind")[1], of("redis.prefix")[1]), ("BIND", "default"));
    let table = print(&["config", "--origins"], &environment).await;
    assert!(table.starts_with("SETTING  ") && !table.contains("hunter2"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("web.bind ") && line.ends_with("  BIND")), "{table}");
}

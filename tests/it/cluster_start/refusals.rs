//! Arguments and settings with which no parent starts: each gets a line that names it, and an exit code.

use std::net::TcpListener;

use phalanx_testkit::run;

/// Runs the tour with these arguments, which it refuses; returns the text on stderr.
async fn refused(arguments: &[&str], environment: &[(&str, &str)], code: i32) -> String {
    let output = run("tour", arguments, environment).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?} {environment:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    text
}

#[tokio::test]
async fn wrong_arguments_exit_with_2_and_are_named() {
    for (arguments, named) in [
        (vec!["--workers", "0"], "'0' for '--workers <N>'"),
        (vec!["--workers", "abc"], "'abc' for '--workers <N>'"),
        (vec!["--workers", "10000"], "10000 is not in 1..=512"),
        (vec!["--wrokers", "3"], "--workers"),
        (vec!["--title", "a"], "--worker-title-prefix"),
    ] {
        let text = refused(&[&["start", "cluster"][..], &arguments].concat(), &[], 2).await;
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
    let text = refused(&["cluster", "scale", "none"], &[], 2).await;
    assert!(text.contains("'none' for '<N>'"), "{text}");
    let text = refused(&["cluster", "stop"], &[], 2).await;
    assert!(text.contains("the cluster tour (development): without a terminal to ask it needs --yes"), "{text}");
}

#[tokio::test]
async fn settings_that_no_worker_can_start_with_exit_with_1_and_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let port = addr.port().to_string();
    let long = format!("pids/{}", "a".repeat(110));
    let config = tempfile::tempdir().unwrap();
    let kinds = "[[cluster.processes]]\nname = \"a\"\nroles = [\"worker\"]\n";
    std::fs::write(config.path().join("local.toml"), kinds.to_owned() + &kinds.replace("\"a\"", "\"b\"")).unwrap();
    let one = ["start", "cluster", "--workers", "1"];
    for (arguments, environment, named) in [
        (&["start", "cluster"][..], vec![], "2 workers need REDIS_URL"),
        (&one[..], vec![("PORT", port.as_str())], "(web.bind, web.port)"),
        (&one, vec![("PHALANX__ADMIN__BIND", &addr.to_string())], "(admin.bind)"),
        (&one, vec![("PHALANX__PATHS__PID", &long)], "a path of more than 107 bytes"),
        (&one, vec![("PHALANX__PATHS__PID", "/proc/none")], "paths.pid"),
        (&one, vec![("PHALANX__WEB__PROT", "1")], "web.port"),
        (&one, vec![("PHALANX_CONFIG", config.path().to_str().unwrap())], "no entry has the role web"),
        (&["cluster", "status"], vec![], "no parent of workers runs here"),
        (&["cluster", "roll"], vec![("PHALANX__PATHS__PID", "")], "paths.pid is empty"),
    ] {
        let text = refused(arguments, &environment, 1).await;
        assert!(text.contains(named), "{arguments:?} {environment:?}: {text}");
    }
}

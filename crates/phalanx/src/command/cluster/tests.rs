//! Arguments, and the committed sample of the state.

use super::*;

const SAMPLE: &str = include_str!("status.json");

#[test]
fn arguments_are_read() {
    let check = |line: &str, expected: Result<(ControlRequest, bool), i32>| {
        let yes = line != "stop";
        let matches = clap_command().try_get_matches_from(std::iter::once("cluster").chain(line.split_whitespace()));
        let parsed = matches.map(|matches| read(&matches)).map_err(|error| error.exit_code());
        assert_eq!(parsed, expected.map(|(request, as_json)| ClusterCommand { request, as_json, yes }), "{line}");
    };
    check("status", Ok((ControlRequest::Status, false)));
    check("status --json", Ok((ControlRequest::Status, true)));
    check("roll", Ok((ControlRequest::Roll, false)));
    check("scale 3", Ok((ControlRequest::Scale { workers: 3 }, false)));
    check("stop", Ok((ControlRequest::Stop, false)));
    check("stop --yes", Ok((ControlRequest::Stop, false)));
    check("reopen", Ok((ControlRequest::Reopen, false)));
    for line in ["", "dance", "scale", "scale 0", "scale abc", "scale 10000", "roll --json", "status x"] {
        check(line, Err(2));
    }
}

#[test]
fn the_number_of_workers_is_from_1_to_512() {
    let start = |line: &str| {
        let matches = start_command().try_get_matches_from(std::iter::once("cluster").chain(line.split_whitespace()));
        matches.map(|matches| read_start(&matches)).map_err(|error| error.to_string())
    };
    let default = StartCluster { workers: None, prefix: "phalanx-worker-".to_owned() };
    assert_eq!(start(""), Ok(default));
    let given = StartCluster { workers: Some(512), prefix: "w".to_owned() };
    assert_eq!(start("--workers 512 --worker-title-prefix w"), Ok(given));
    for (line, named) in [
        ("--workers 0", "'0' for '--workers <N>': 0 is not in 1..=512"),
        ("--workers abc", "'abc' for '--workers <N>'"),
        ("--workers 10000", "10000 is not in 1..=512"),
        ("--worker-title-prefix=", "--worker-title-prefix"),
    ] {
        let error = start(line).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn the_state_is_printed_as_committed_and_as_a_table() {
    let status: ClusterStatus = serde_json::from_str(SAMPLE).unwrap();
    assert_eq!(serde_json::to_string_pretty(&status).unwrap(), SAMPLE.trim_end());
    let table = status_table(&status);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "parent 4000, version 1.2.0, up 2h 3m: serving, 1 of 2 workers ready");
    assert_eq!(lines[1], "roll 2 stopped 1m 1s ago: phalanx-worker-3: the port is taken");
    assert!(lines[2].starts_with("ID                PID   STATE"), "{table}");
    assert!(
        lines[3].contains("ready") && lines[3].contains("41 MiB") && lines[3].ends_with("127.0.0.1:9101"),
        "{table}"
    );
    assert!(lines[4].contains("booting  -") && lines[4].ends_with('-'), "{table}");
}

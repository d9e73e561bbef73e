//! The command `call`: an action from the command line, alone and as a guest of a cluster.

use std::process::{Output, Stdio};
use std::time::Duration;

use phalanx_testkit::{Process, Redis, binary, command, run};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::client::{Socket, get};

const SOON: Duration = Duration::from_secs(20);

async fn call(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run("tour", &[&["call"], arguments].concat(), environment).await
}

/// Calls with success; returns the answer, which is all that stdout has.
async fn answer(arguments: &[&str], environment: &[(&str, &str)]) -> Value {
    let output = call(arguments, environment).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn fields_are_options_or_json_and_the_answer_is_that_over_http() {
    let node = Process::start("tour", &[("PHALANX__WEB__METADATA", "false")]).await;
    let over_http = get(node.addr, "/api/validationTest?string=abc&number=3").await.json();
    assert_eq!(over_http, json!({ "string": "abc", "number": 3 }));
    for arguments in [
        ["--string", "abc", "--number", "3"].as_slice(),
        &["--string=abc", "--number=3"],
        &["--json", r#"{"string":"abc","number":3}"#],
        &["--string", "abc", "--json", r#"{"number":3}"#],
    ] {
        assert_eq!(answer(&[&["validationTest"], arguments].concat(), &[]).await, over_http, "{arguments:?}");
    }
    assert_eq!(answer(&["randomNumber"], &[]).await["version"], 2);
    assert!(answer(&["randomNumber", "--version", "1"], &[]).await["stringRandomNumber"].is_string());
}

#[tokio::test]
async fn json_is_read_from_a_file_and_from_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input.json");
    std::fs::write(&file, r#"{"text":"of a file"}"#).unwrap();
    let answered = answer(&["echo", "--json", &format!("@{}", file.display())], &[]).await;
    assert_eq!(answered["text"], "of a file");
    let mut piped = command("tour", folder.path());
    piped.args(["call", "echo", "--json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut piped = piped.spawn().unwrap();
    piped.stdin.take().unwrap().write_all(br#"{"text":"of stdin"}"#).await.unwrap();
    let output = timeout(SOON, piped.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["text"], "of stdin");
}

#[tokio::test]
async fn an_input_that_cannot_be_used_exits_with_2_and_a_call_that_fails_with_1() {
    let large = format!("{{\"text\":\"{}\"}}", "a".repeat(2 << 20));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.json");
    std::fs::write(&file, large).unwrap();
    let large = format!("@{}", file.display());
    for (arguments, code, reason) in [
        (["randmNumber"].as_slice(), 2, "there is no action randmNumber; did you mean randomNumber?"),
        (&["randomNumber", "--version", "7"], 2, "randomNumber has no such version; it has 1, 2"),
        (&["echo", "--json", "{\"text\""], 2, "--json: EOF while parsing an object at line 1 column 7"),
        (&["echo", "--json", "[1]"], 2, "the input of an action is an object"),
        (&["echo", "--json", "@/nowhere"], 2, "--json: /nowhere: "),
        (&["echo", "--json", &large], 2, "more than 1048576 bytes"),
        (&["echo", "--text", "a", "--json", "{\"text\":\"b\"}"], 2, "text is given by --text and in --json"),
        (&["validationTest", "--strin", "abc"], 2, "a similar argument exists: '--string'"),
        (&["validationTest"], 2, "invalid_input: the input is not valid\n       string: is required"),
        (&["sleepTest", "--sleepDuration", "soon"], 2, "sleepDuration: must be a whole number"),
        (&["sleepTest", "--timeout", "5"], 2, "'--timeout <TIME>'"),
        (&["sleepTest", "--sleepDuration", "60000", "--timeout", "100ms"], 1, "did not end within --timeout"),
        (&["panicTest"], 1, "internal: internal error"),
        (&["taskStats"], 1, "unavailable: "),
    ] {
        let output = call(arguments, &[]).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {stderr}");
        assert!(stderr.contains("error: ") && stderr.contains(reason), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn help_prints_the_fields_of_an_action() {
    let output = call(&["validationTest", "--help"], &[]).await;
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("--string <VALUE>") && help.contains("[required]"), "{help}");
}

#[tokio::test]
async fn a_call_reaches_the_nodes_of_a_cluster_and_leaves_nothing_behind() {
    let redis = Redis::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX_TITLE", "caller")];
    let node = Process::start("tour", &[("REDIS_URL", &url), ("PHALANX_TITLE", "one")]).await;
    let mut socket = Socket::join(node.addr, "defaultRoom").await;
    let asked = answer(&["nodesAsk"], &environment).await;
    assert!(asked["answers"]["one"]["uptime"].is_number() && asked["missing"] == json!([]), "{asked}");
    answer(&["roomSay", "--room", "defaultRoom", "--message", "from the command line"], &environment).await;
    assert_eq!(socket.next_in("user").await["message"], "from the command line");
    let id = socket.id();
    answer(&["connectionApply", "--id", &id, "--method", "sendMessage", "--json", r#"{"args":{"n":1}}"#], &environment)
        .await;
    assert_eq!(socket.read().await["n"], 1);
    let enqueued = answer(&["taskEnqueue", "--name", "sleep", "--input", r#"{"ms":1}"#], &environment).await;
    assert!(enqueued["id"].is_string(), "{enqueued}");
    let nodes = get(node.addr, "/api/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1), "{nodes}");
}

#[tokio::test]
async fn a_body_of_bytes_a_file_or_a_stream_is_printed_as_it_is() {
    let lines: String = (0..10).map(|line| format!("line {line}\n")).collect();
    let file = std::fs::read(binary("tour")).unwrap();
    for (kind, expected) in [("bytes", &b"\x00\x9f\x92\x96\n"[..]), ("file", &file), ("stream", lines.as_bytes())] {
        let output = call(&["bodyTest", "--kind", kind], &[]).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{kind}: {:?}", output.status);
        assert!(output.stdout == expected, "{kind}: {} bytes, not {}", output.stdout.len(), expected.len());
    }
    let output = call(&["bodyTest", "--kind", "other"], &[]).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
}

#[tokio::test]
async fn closed_streams_end_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer");
    for (line, code, answered) in [
        ("$TOUR call echo --text a <&- >answer 2>&-", 0, "{\"text\":\"a\"}\n"),
        ("$TOUR call echo --text a <&- >&- 2>&-", 0, ""),
        ("$TOUR call echo --json - <&- >answer 2>&-", 2, ""), // nothing is no JSON
        ("$TOUR call panicTest >answer 2>&-", 1, ""),
        ("$TOUR call bodyTest --kind file >&-", 0, ""),
    ] {
        std::fs::write(&answer, "").unwrap();
        let mut bash = tokio::process::Command::new("bash");
        bash.args(["-c", line])
            .current_dir(folder.path())
            .env("TOUR", binary("tour"))
            .env_remove("REDIS_URL")
            .kill_on_drop(true);
        let status = timeout(SOON, bash.status()).await.unwrap().unwrap();
        assert_eq!((status.code(), &*std::fs::read_to_string(&answer).unwrap()), (Some(code), answered), "{line}");
    }
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_named() {
    let output = call(&["status"], &[("REDIS_URL", "redis://:secret@127.0.0.1:1")]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    assert!(
        stderr.contains("the backend does not answer") && stderr.contains("(redis://:***@127.0.0.1:1)"),
        "{stderr}"
    );
}

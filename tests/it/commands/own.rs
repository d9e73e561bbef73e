//! Commands of an application's own, `completions` and `--version`.

use phalanx_testkit::{Process, Redis, binary, run};
use tokio::process::Command;

use super::print;
use crate::client::Socket;

#[tokio::test]
async fn an_own_command_reaches_the_cluster_as_a_guest() {
    let redis = Redis::start().await;
    let url = redis.url();
    // The server of the tests knows the cluster `tour`.
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__CLUSTER__NAME", "tour")];
    let node = Process::start("chat", &environment).await;
    let mut socket = Socket::join(node.addr, "lobby").await;
    let output = run("chat", &["announce", "back at nine"], &environment).await;
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let message = socket.next_in("user").await;
    assert_eq!(message["message"], serde_json::json!({ "name": "server", "text": "back at nine" }));
    assert_eq!(redis.command("HLEN phalanx:tour:nodes").await, ":1\r\n");
    for (wrong, reason) in [(&["announce"][..], "<TEXT>"), (&["announce", "a", "b"], "unexpected argument 'b'")] {
        let output = run("chat", wrong, &environment).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.contains(reason)), (Some(2), true), "{wrong:?}: {stderr}");
    }
    let help = run("chat", &["--help"], &[]).await;
    assert!(String::from_utf8_lossy(&help.stdout).contains("announce     Says something to everybody"), "{help:?}");
    let alone = run("chat", &["announce", "hello"], &[]).await;
    let reason = String::from_utf8(alone.stderr).unwrap();
    assert_eq!((alone.status.code(), &*reason), (Some(1), "error: there is no such room\n"));
}

#[tokio::test]
async fn a_shell_completes_commands_and_their_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = print(&["completions", shell], &[("PHALANX__WEB__PROT", "1")]).await;
        assert!(script.contains("connections") && script.contains("room"), "{shell}");
    }
    let complete = "source <($TOUR completions bash); COMP_WORDS=(tour tasks r); COMP_CWORD=2; _tour tour r tasks; \
                    echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", complete]).env("TOUR", binary("tour")).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "running retry resume\n", "{output:?}");
}

#[tokio::test]
async fn the_version_is_the_applications() {
    assert_eq!(print(&["--version"], &[]).await, format!("tour {}\n", env!("CARGO_PKG_VERSION")));
}

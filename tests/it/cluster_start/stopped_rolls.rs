//! A roll whose new program does not serve is stopped: the old workers stay, and the next good roll works.

use std::fs;
use std::path::Path;

use phalanx_testkit::{Signal, binary, print};

use super::deployed::Deployed;
use super::{Workers, signal};
use crate::cluster::until;
use crate::drain::clients::{Class, Clients};
use crate::drain::load::{Outcomes, TOUR};
use crate::panics::SOON;

/// Waits for a roll, which fails; returns the reason that the command prints.
async fn failed_roll(workers: &Workers) -> String {
    let output = workers.command(&["cluster", "roll"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}\n{}", workers.parent.stderr());
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_to_a_program_that_does_not_serve_leaves_the_old_workers_and_says_why() {
    let deployed = Deployed::new();
    deployed.add_script("ends", "exit 1");
    deployed.add_script("panics", "TOUR_PANICS='the table of prices is missing' exec $TOUR \"$@\"");
    deployed.add_script("hangs", "exec sleep 1000");
    deployed.add("missing");
    // Beside all other tests, a good worker may need seconds too.
    let environment = [("PHALANX__REDIS__BOOT_TIMEOUT", "15s"), ("PHALANX__CLUSTER__START_TIMEOUT", "16s")];
    let workers = Workers::start_program(&deployed.program(), 2, &environment).await;
    let before = workers.pids().await;
    let clients = Clients::start(Class::KeepAlive(40), 4, workers.parent.addr, TOUR);
    for (release, reason) in [
        ("ends", ["phalanx-worker-3 ended with exit status 1", ""]),
        ("panics", ["phalanx-worker-3: initializer faulty: panicked: the table of prices is missing", ""]),
        // The worker that panicked may not have ended yet, and have its number still.
        ("hangs", ["phalanx-worker-", " was not ready within 16s"]),
        ("missing", ["No such file or directory", ""]),
    ] {
        deployed.switch(release);
        let text = failed_roll(&workers).await;
        let has_reason = |text: &str| reason.iter().all(|part| text.contains(part));
        assert!(has_reason(&text), "{release}: {text}");
        assert_eq!(workers.pids().await, before, "{release}");
        let status = workers.status().await;
        let last = &status["last_roll"];
        assert!(last["result"] == "stopped" && has_reason(last["reason"].as_str().unwrap()), "{last}");
    }
    deployed.switch("good");
    workers.roll().await;
    assert!(workers.pids().await.into_values().all(|pid| !before.values().any(|old| *old == pid)));
    let outcomes = Outcomes::of_all(clients).await;
    print(format_args!("over four stopped rolls and a good one: {outcomes:?}"));
    assert_eq!((outcomes.failed, outcomes.refused), (0, 0), "{}", workers.parent.stderr());
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_with_a_mistake_in_the_settings_is_stopped_with_the_worker_s_words() {
    let config = tempfile::tempdir().unwrap();
    let folder = config.path().to_str().unwrap();
    let workers = Workers::start(2, &[("PHALANX_CONFIG", folder)]).await;
    let before = workers.pids().await;
    fs::write(config.path().join("local.toml"), "[web]\nprot = 1\n").unwrap();
    let text = failed_roll(&workers).await;
    assert!(text.contains("there is no setting web.prot; did you mean port?"), "{text}");
    assert_eq!(workers.pids().await, before);
    fs::remove_file(config.path().join("local.toml")).unwrap();
    workers.roll().await;
    workers.stop().await;
}

/// The program that a process runs.
fn program_of(pid: i32) -> String {
    fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_a_deploy_runs_the_old_program_and_a_roll_the_new_one() {
    let deployed = Deployed::new();
    let workers = Workers::start_program(&deployed.program(), 2, &[]).await;
    let before = workers.pids().await;
    // A copy, so that its inode is another one: `exe` of a link to the same file would show either name.
    fs::copy(binary("tour"), deployed.add("next").join("tour")).unwrap();
    deployed.switch("next");
    fs::remove_dir_all(deployed.folder().join("good")).unwrap();
    signal(before["phalanx-worker-1"], Signal::KILL);
    until("the worker is replaced", SOON, async || {
        workers.pids().await.get("phalanx-worker-1").is_some_and(|pid| *pid != before["phalanx-worker-1"])
    })
    .await;
    let replaced = program_of(workers.pids().await["phalanx-worker-1"]);
    assert!(!replaced.contains("/next/"), "{replaced}");
    workers.roll().await;
    for pid in workers.pids().await.into_values() {
        assert!(program_of(pid).ends_with("/next/tour"), "{}", program_of(pid));
    }
    workers.stop().await;
}

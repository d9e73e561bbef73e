//! A roll whose new program does not serve is stopped: the old workers stay, and the next good roll works.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use phalanx_testkit::{Signal, binary};
use tempfile::TempDir;

use super::{Workers, signal};
use crate::cluster::until;
use crate::panics::SOON;

/// A folder with releases of the tour, and the link `current` to one of them.
struct Deployed(TempDir);

impl Deployed {
    fn new() -> Self {
        let deployed = Self(tempfile::tempdir().unwrap());
        deployed.release("good", None);
        deployed.switch("good");
        deployed
    }

    /// Adds a release: a script, or else the tour.
    fn release(&self, name: &str, script: Option<&str>) {
        let folder = self.0.path().join(name);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("tour");
        match script {
            Some(script) => fs::write(&path, script).unwrap(),
            None => drop(fs::hard_link(binary("tour"), &path).or_else(|_| fs::copy(binary("tour"), &path).map(drop))),
        }
        if script.is_some() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn switch(&self, name: &str) {
        let _ = fs::remove_file(self.current());
        symlink(name, self.current()).unwrap();
    }

    fn current(&self) -> std::path::PathBuf {
        self.0.path().join("current")
    }

    fn program(&self) -> String {
        self.current().join("tour").to_str().unwrap().to_owned()
    }
}

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
    deployed.release("ends", Some("#!/bin/sh\nexit 1\n"));
    deployed.release("hangs", Some("#!/bin/sh\nexec sleep 1000\n"));
    fs::create_dir(deployed.0.path().join("missing")).unwrap();
    let environment = [("PHALANX__REDIS__BOOT_TIMEOUT", "1s"), ("PHALANX__CLUSTER__START_TIMEOUT", "5s")];
    let workers = Workers::start_program(&deployed.program(), 2, &environment).await;
    let before = workers.pids().await;
    for (release, reason) in [
        ("ends", "phalanx-worker-3 ended with exit status 1"),
        ("hangs", "phalanx-worker-3 was not ready within 5s"),
        ("missing", "No such file or directory"),
    ] {
        deployed.switch(release);
        let text = failed_roll(&workers).await;
        assert!(text.contains(reason), "{release}: {text}");
        assert_eq!(workers.pids().await, before, "{release}");
        let status = workers.status().await;
        let last = &status["last_roll"];
        assert!(last["result"] == "stopped" && last["reason"].as_str().unwrap().contains(reason), "{last}");
    }
    deployed.switch("good");
    assert!(workers.command(&["cluster", "roll"]).await.status.success(), "{}", workers.parent.stderr());
    assert!(workers.pids().await.into_values().all(|pid| !before.values().any(|old| *old == pid)));
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
    assert!(workers.command(&["cluster", "roll"]).await.status.success(), "{}", workers.parent.stderr());
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
    let next = deployed.0.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::copy(binary("tour"), next.join("tour")).unwrap();
    deployed.switch("next");
    fs::remove_dir_all(deployed.0.path().join("good")).unwrap();
    signal(before["phalanx-worker-1"], Signal::KILL);
    until("the worker is replaced", SOON, async || {
        workers.pids().await.get("phalanx-worker-1").is_some_and(|pid| *pid != before["phalanx-worker-1"])
    })
    .await;
    let replaced = program_of(workers.pids().await["phalanx-worker-1"]);
    assert!(!replaced.contains("/next/"), "{replaced}");
    assert!(workers.command(&["cluster", "roll"]).await.status.success(), "{}", workers.parent.stderr());
    for pid in workers.pids().await.into_values() {
        assert!(program_of(pid).ends_with("/next/tour"), "{}", program_of(pid));
    }
    workers.stop().await;
}

//! Releases of a program beside each other, as a deploy leaves them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use phalanx_testkit::binary;
use tempfile::TempDir;

/// A folder with releases of the tour, and the link `current` to one of them.
pub(super) struct Deployed(TempDir);

impl Deployed {
    /// With the release `good`, which is the current one.
    pub(super) fn new() -> Self {
        let deployed = Self(tempfile::tempdir().unwrap());
        let (folder, tour) = (deployed.add("good"), binary("tour"));
        fs::hard_link(&tour, folder.join("tour")).or_else(|_| fs::copy(&tour, folder.join("tour")).map(drop)).unwrap();
        deployed.switch("good");
        deployed
    }

    /// Adds a release without a program; returns its folder.
    pub(super) fn add(&self, name: &str) -> PathBuf {
        let folder = self.0.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// Adds a release whose program is a script of the shell; `$TOUR` is the tour.
    pub(super) fn add_script(&self, name: &str, script: &str) {
        let path = self.add(name).join("tour");
        fs::write(&path, format!("#!/bin/sh\nTOUR={}\n{script}\n", binary("tour").display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes this release the current one.
    pub(super) fn switch(&self, name: &str) {
        let current = self.0.path().join("current");
        let _ = fs::remove_file(&current);
        symlink(name, current).unwrap();
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The path of the program of the current release.
    pub(super) fn program(&self) -> String {
        self.0.path().join("current/tour").to_str().unwrap().to_owned()
    }
}

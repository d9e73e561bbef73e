//! Builds nodes of other sources than the tree, in `target/soak`: with a mutation, or of an earlier commit.
//!
//! All are built in one copy of the tree, in which only files are written that differ. Cargo takes packages at the same
//! place in two copies for the same, and looks at the times of their files alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the nodes with a mutation; returns the path of the program.
pub(crate) fn build_mutation(name: &str) -> String {
    let (root, tree) = (root(), tree());
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = Command::new("git").current_dir(&root).args(list).output().expect("git is installed");
    assert!(files.status.success(), "the tests run in a clone");
    let files = String::from_utf8(files.stdout).expect("paths are UTF-8");
    copy_files(&root, files.split_terminator('\0').map(PathBuf::from).collect());
    // From the root: git passes over patches of files outside of the folder that it runs in.
    let within = tree.strip_prefix(&root).expect("it is below the root");
    let patch = root.join("tests/soak/mutations").join(format!("{name}.patch"));
    run(Command::new("git").current_dir(&root).arg("apply").arg("--directory").arg(within).arg(patch));
    build(name)
}

/// Builds the nodes of a commit; returns the path of the program.
pub(crate) fn build_commit(commit: &str) -> String {
    let (root, of_commit) = (root(), folder().join("commit"));
    let object = format!("{commit}^{{commit}}");
    let known = Command::new("git").current_dir(&root).args(["cat-file", "-e", &object]).status();
    let is_known = known.expect("git is installed").success();
    assert!(is_known, "this clone lacks {commit}: a shallow one has the others after `git fetch --unshallow`");
    let _ = std::fs::remove_dir_all(&of_commit);
    std::fs::create_dir_all(&of_commit).expect("the target folder is writable");
    let archive = of_commit.with_extension("tar");
    run(Command::new("git").current_dir(&root).args(["archive", "--output"]).arg(&archive).arg(commit));
    run(Command::new("tar").current_dir(&of_commit).arg("-xf").arg(&archive));
    copy_files(&of_commit, files_below(&of_commit));
    build(commit)
}

fn build(name: &str) -> String {
    let target = folder().join("target");
    let build = ["build", "--locked", "--package", "tour", "--target-dir"];
    run(Command::new("cargo").current_dir(tree()).args(build).arg(&target).env("CARGO_INCREMENTAL", "0"));
    // The next one is built there too.
    let program = folder().join(format!("tour-{name}"));
    std::fs::copy(target.join("debug").join("tour"), &program).expect("the program was built");
    program.into_os_string().into_string().expect("the path is UTF-8")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the workspace").to_owned()
}

fn folder() -> PathBuf {
    root().join("target").join("soak")
}

fn tree() -> PathBuf {
    folder().join("tree")
}

/// Gives the copy of the tree these files and no others.
fn copy_files(from: &Path, files: BTreeSet<PathBuf>) {
    let tree = tree();
    std::fs::create_dir_all(&tree).expect("the target folder is writable");
    for file in files_below(&tree).difference(&files) {
        std::fs::remove_file(tree.join(file)).expect("the target folder is writable");
    }
    for file in files {
        // A file that is deleted and not committed yet is in the list.
        let Ok(content) = std::fs::read(from.join(&file)) else { continue };
        let to = tree.join(file);
        if std::fs::read(&to).is_ok_and(|copied| copied == content) {
            continue;
        }
        std::fs::create_dir_all(to.parent().expect("it is in the tree")).expect("the target folder is writable");
        std::fs::write(to, content).expect("the disk has room");
    }
}

/// The files in a folder and those below it, relative to it.
fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut files, mut folders) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("the target folder is readable") {
            let path = entry.expect("the target folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).expect("it is below the folder").to_owned());
            }
        }
    }
    files
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} fails");
}

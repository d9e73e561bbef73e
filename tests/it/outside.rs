//! A first application, made outside this repository as the README's first page says, builds, passes its test and answers.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const README: &str = include_str!("../../README.md");
const GUIDE: &str = include_str!("../../crates/phalanx/src/guide/getting_started.md");

/// The dependency as the README writes it, for a clone beside the application.
const DEPENDENCY: &str = r#""../phalanx/crates/phalanx""#;

/// Most time of a build of all dependencies, on a machine with two cores that runs other tests beside it.
const BUILD: Duration = Duration::from_secs(600);

/// The files that a page shows, by path: each block below a line `<!-- file: PATH -->`.
fn files(page: &'static str) -> Vec<(&'static str, &'static str)> {
    let marked = page.split("<!-- file: ").skip(1);
    marked
        .map(|rest| {
            let (path, rest) = rest.split_once(" -->\n```").expect("a marked block follows its mark");
            let (_, rest) = rest.split_once('\n').expect("a block has a first line");
            (path, rest.split_once("\n```").expect("a block has an end").0)
        })
        .collect()
}

/// The commands that the README shows, and the line that follows each, if there is one.
fn commands() -> Vec<(&'static str, Option<&'static str>)> {
    let marked = README.split("<!-- run -->\n```console\n").skip(1);
    let mut commands = Vec::new();
    for block in marked.map(|rest| rest.split_once("```").expect("a block has an end").0) {
        let mut lines = block.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command, lines.peek().copied().filter(|next| !next.starts_with("$ "))));
            }
        }
    }
    commands
}

/// Runs cargo as a stranger would, but offline, with the versions of this workspace, and without debug information.
async fn cargo(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(folder).env("CARGO_NET_OFFLINE", "true");
    // Dependencies that this workspace has built are not built again; the program itself lands beside, since an example
    // has its name.
    command.env("CARGO_BUILD_BUILD_DIR", root().join("target")).env("CARGO_TARGET_DIR", root().join("target/outside"));
    command.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_INCREMENTAL", "0").kill_on_drop(true);
    // These are of the package whose test this is. With them the build script of `ring` runs anew, and everything above
    // it is built again, here and in the next build of the workspace.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    {
        command.env_remove(name);
    }
    let output = timeout(BUILD, command.output()).await.expect("cargo ends in time").unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}:\n{log}\n{}", String::from_utf8_lossy(&output.stdout));
    output
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

#[tokio::test]
async fn a_program_made_by_the_readme_builds_passes_its_test_and_answers() {
    let shown: Vec<&str> = commands().into_iter().map(|(command, _)| command).collect();
    let curl = "curl localhost:8080/api/greet/Ada";
    assert_eq!(shown, ["cargo new hello", "cd hello", "cargo run", curl, "cargo test"]);

    let empty = tempfile::tempdir().unwrap();
    cargo(empty.path(), &["new", "hello", "--vcs", "none"]).await;
    let folder = empty.path().join("hello");
    for (path, text) in files(README) {
        let dependency = format!("{:?}", root().join("crates/phalanx"));
        assert_eq!(text.contains(DEPENDENCY), path == "Cargo.toml", "{path}");
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace(DEPENDENCY, &dependency)).unwrap();
    }
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();

    let tested = cargo(&folder, &["test"]).await;
    let tested = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.contains("test greets_by_name ... ok"), "{tested}");

    cargo(&folder, &["build"]).await;
    let mut node = Command::new(root().join("target/outside/debug/hello"));
    node.current_dir(&folder).env("PORT", "0").env("BIND", "127.0.0.1").env("PHALANX__ADMIN__BIND", "");
    let mut node = node.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let first = timeout(Duration::from_secs(30), lines.next_line()).await.expect("it is ready in time").unwrap();
    let addr = first.as_deref().and_then(|line| line.strip_prefix("listening on http://")).expect("the first line");

    let expected = commands().into_iter().find(|(command, _)| *command == curl).and_then(|(_, output)| output);
    let expected = expected.unwrap().strip_suffix(" \u{2026}").unwrap();
    let answer = Command::new("bash").args(["-c", &curl.replace("localhost:8080", addr)]).output().await.unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.starts_with(expected), "{answer}");
}

#[test]
fn the_guide_shows_the_same_files_as_the_readme() {
    assert_eq!(files(GUIDE), files(README));
}

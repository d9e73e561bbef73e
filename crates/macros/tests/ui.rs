//! The errors for wrong uses of the attributes: a file for each, with the compiler's message beside it.
//!
//! After a change of a message run `UI=overwrite cargo test -p phalanx-macros --test ui` and review the diff. The cases
//! that must compile are modules of this binary, so that tests can check their definitions.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "ui/pass/actions.rs"]
mod actions;
#[path = "ui/pass/errors.rs"]
mod errors;
#[path = "ui/pass/inputs.rs"]
mod inputs;
#[path = "ui/pass/shadows.rs"]
mod shadows;
#[path = "ui/pass/tasks.rs"]
mod tasks;

/// The compilers that run at once.
const AT_ONCE: usize = 4;

/// The files in a folder with this extension, by path.
fn files(folder: &Path, extension: &str) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect()
}

/// The library that this binary was built with: of several builds the last, since cargo has just made sure of it.
fn library(folder: &Path) -> PathBuf {
    let is_ours = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("libphalanx-");
    let built = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    files(folder, "rlib").into_iter().filter(is_ours).max_by_key(built).expect("it is a dependency of this binary")
}

/// The folder in which cargo runs the compiler, which names files from there.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap()
}

/// A compiler of one case, against the libraries that cargo has built for this binary: nothing is built a second time.
fn compiler(case: &Path, folder: &Path, library: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // Some checks of a generic function are made where its code is.
    let has_code = std::fs::read_to_string(case).unwrap().starts_with("// Its errors come with the code");
    command.arg(if has_code { "--emit=obj" } else { "--emit=metadata" });
    command.args(["--edition=2024", "-o", "/dev/null", "-Adead_code", "--diagnostic-width=140"]);
    command.arg("--extern").arg(format!("phalanx={}", library.display()));
    command.arg("-L").arg(format!("dependency={}", folder.display()));
    command.arg(Path::new("crates/macros").join(case)).current_dir(workspace());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The message without its summary and without the line numbers of other files than the case, on whose number of digits
/// the margin depends.
fn normalized(output: &str) -> String {
    const SUMMARY: [&str; 3] =
        ["error: aborting due to ", "For more information about ", "Some errors have detailed explanations: "];
    let (mut text, mut is_elsewhere) = (String::new(), false);
    for line in output.lines().filter(|line| !SUMMARY.iter().any(|start| line.starts_with(start))) {
        let margin = line.bytes().take_while(|byte| *byte == b' ' || byte.is_ascii_digit()).count();
        let (margin, rest) = line.split_at(margin);
        let number = margin.trim();
        let line = if ["--> ", "::: "].iter().any(|arrow| rest.starts_with(arrow)) {
            // A program outside of the workspace builds it by its full path.
            let rest = rest.replace(&format!("{}/", workspace().display()), "");
            let rest = rest.replace("crates/macros/tests/ui/", "tests/ui/");
            // The standard library, which is in another folder for each version of the compiler.
            let own = rest.find("library/core/").map(|at| format!("{}{}", &rest[..4], &rest[at..]));
            let rest = own.unwrap_or(rest);
            is_elsewhere = !rest[4..].starts_with("tests/ui/");
            let path_ends = rest.find(".rs:").filter(|_| is_elsewhere).map_or(rest.len(), |at| at + 3);
            format!("  {}", &rest[..path_ends])
        } else if rest.starts_with('|') || rest.starts_with("= ") || !number.is_empty() {
            format!("{:>2} {rest}", if is_elsewhere { "" } else { number })
        } else {
            line.to_owned()
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    format!("{}\n", text.trim_end())
}

#[test]
fn every_error_is_reported_at_its_span() {
    let binary = std::env::current_exe().unwrap();
    let folder = binary.parent().unwrap();
    let library = library(folder);
    let cases: Vec<_> = files(Path::new("tests/ui"), "rs").into_iter().collect();
    let overwrites = std::env::var("UI").is_ok_and(|it| it == "overwrite");
    let mut wrong = Vec::new();
    for some in cases.chunks(AT_ONCE) {
        let running: Vec<_> = some.iter().map(|case| compiler(case, folder, &library).spawn().unwrap()).collect();
        for (case, compiler) in some.iter().zip(running) {
            let output = compiler.wait_with_output().unwrap();
            let message = normalized(&String::from_utf8(output.stderr).unwrap());
            let expected = case.with_extension("stderr");
            if overwrites {
                std::fs::write(&expected, &message).unwrap();
            }
            let expected = std::fs::read_to_string(expected).unwrap_or_default();
            if output.status.success() || message != expected {
                wrong.push(format!("{}: {}\n{message}instead of\n{expected}", case.display(), output.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let messages = files(Path::new("tests/ui"), "stderr").into_iter().map(|path| path.with_extension("rs"));
    assert_eq!(messages.collect::<Vec<_>>(), cases, "each message has its case");
}

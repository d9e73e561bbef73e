//! The command `completions`: the words that a shell completes.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

use super::output::print;

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    Command::new("completions").about("Prints the completions for a shell, to be read at its start").arg(shell)
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> Shell {
    matches.get_one("shell").copied().unwrap_or(Shell::Bash)
}

/// Prints the completions of all commands, for the program by the name that it was started by.
pub(crate) fn run(mut whole: Command, shell: Shell) -> ExitCode {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| whole.get_name().to_owned());
    let mut text = Vec::new();
    generate(shell, &mut whole, name, &mut text);
    print(&String::from_utf8_lossy(&text))
}

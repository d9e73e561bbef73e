//! The confirmation of commands that destroy something.

use std::io::{self, IsTerminal, Write};

use clap::{Arg, ArgAction};
use phalanx_core::Node;

use crate::settings::Settings;

/// The option that confirms a command.
pub(super) fn yes_option() -> Arg {
    Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("Does not ask, which needs a terminal")
}

/// Whether a person reads questions. The question goes to stderr, so that stdout has the result alone.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The error where there is no terminal.
pub(super) fn needs_yes(app: &str, settings: &Settings) -> String {
    let cluster = settings.config.cluster.name_of(app);
    format!("this changes the cluster {cluster} ({}): without a terminal to ask it needs --yes", settings.environment.0)
}

/// Asks whether to do this to the cluster of a node.
///
/// # Errors
///
/// The answer is not `y` or `yes`: nothing is to be done.
pub(super) fn confirm(node: &Node, doing: &str) -> Result<(), String> {
    ask(doing, node.config().cluster.name_of(node.app()), &node.environment().0)
}

/// Asks whether to do this to a cluster.
///
/// # Errors
///
/// The answer is not `y` or `yes`: nothing is to be done.
pub(super) fn ask(doing: &str, cluster: &str, environment: &str) -> Result<(), String> {
    let question = format!("{doing} in the cluster {cluster} ({environment})? [y/N] ");
    let mut answer = String::new();
    let read = io::stderr().lock().write_all(question.as_bytes()).and_then(|()| io::stdin().read_line(&mut answer));
    match read {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        Ok(_) => Err("not confirmed: nothing was changed".to_owned()),
        Err(error) => Err(format!("the answer cannot be read: {error}")),
    }
}

//! The command `config`: the merged settings.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::output::Printed;
use super::{json_option, table};
use crate::settings::Settings;

/// A look at the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigCommand {
    pub(super) origins: bool,
    pub(crate) as_json: bool,
}

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    Command::new("config")
        .about("Prints the merged settings, secrets hidden")
        .arg(
            Arg::new("origins")
                .long("origins")
                .action(ArgAction::SetTrue)
                .help("Prints where each comes from: default, a file, a variable, an option"),
        )
        .arg(json_option().requires("origins"))
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> ConfigCommand {
    ConfigCommand { origins: matches.get_flag("origins"), as_json: matches.get_flag("json") }
}

/// The settings as TOML, or each with its origin.
pub(crate) fn config(settings: &Settings, command: ConfigCommand) -> Printed {
    if !command.origins {
        return Printed { text: settings.to_toml(), ..Printed::default() };
    }
    let mut rows = vec![["SETTING", "VALUE", "ORIGIN"].map(str::to_owned)];
    let mut documents = Vec::new();
    for setting in settings.with_origins() {
        documents.push(json!({ "setting": setting.path, "value": setting.value, "origin": setting.origin }));
        rows.push([setting.path, setting.value, setting.origin]);
    }
    Printed { text: table::align(&rows), lines: vec![json!({ "settings": documents })], ..Printed::default() }
}

//! The command line of an application.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use phalanx_core::config::{Config, NodeRole, duration};
use phalanx_core::registry::{Registry, path_of};
use phalanx_core::{ActionError, Exposure, Limit};
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use crate::logging;
use crate::process::{Launcher, in_place, worker};
use crate::settings::list_items;

pub(crate) mod call;
pub(crate) mod cluster;
mod completions;
pub(crate) mod config;
mod confirm;
pub(crate) mod connections;
pub(crate) mod doctor;
pub(crate) mod nodes;
pub(crate) mod output;
pub(crate) mod own;
mod page;
pub(crate) mod rooms;
pub(crate) mod routes;
mod table;
pub(crate) mod tasks;
mod visit;

use call::CallCommand;
use cluster::{ClusterCommand, StartCluster};
use config::ConfigCommand;
use connections::ConnectionsCommand;
use doctor::DoctorCommand;
use own::OwnCommand;
use rooms::RoomsCommand;
use tasks::TasksCommand;

/// A command of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AppCommand {
    Start(Launcher),
    /// `start --check`.
    Check,
    StartCluster(StartCluster),
    Cluster(ClusterCommand),
    Config(ConfigCommand),
    Actions,
    Routes {
        as_json: bool,
    },
    Nodes {
        as_json: bool,
    },
    Connections(ConnectionsCommand),
    Rooms(RoomsCommand),
    Doctor(DoctorCommand),
    Tasks(TasksCommand),
    Call(CallCommand),
    /// A command of the application's own, by its name.
    Own(String, ArgMatches),
}

/// The settings that the command line overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) config_dir: Option<PathBuf>,
    pub(crate) title: Option<String>,
    pub(crate) environment: Option<String>,
    /// The roles of the node, or of the workers.
    pub(crate) roles: Option<GivenRoles>,
}

/// The value of `--roles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenRoles(pub(crate) Vec<NodeRole>);

impl Overrides {
    /// The options by which another process of the application reads the same settings. Each worker has an id of its own,
    /// and gets its roles from its parent.
    pub(crate) fn options(&self) -> Vec<OsString> {
        let folder = self.config_dir.iter().flat_map(|folder| ["--config".into(), folder.clone().into_os_string()]);
        let environment = self.environment.iter().flat_map(|name| ["--env".into(), name.into()]);
        folder.chain(environment).collect()
    }
}

/// Parses the command line of this process.
///
/// # Errors
///
/// The exit code when nothing is left to do: help or completions were printed, or the arguments could not be parsed.
pub(crate) fn parse(whole: Command) -> Result<(AppCommand, Overrides), ExitCode> {
    let matches = whole.clone().try_get_matches_from(std::env::args_os()).map_err(|error| show(&error))?;
    match matches.subcommand_matches("completions") {
        Some(inner) => Err(completions::run(whole, completions::read(inner))), // it needs no settings
        None => read(&matches).map_err(|error| show(&error)),
    }
}

/// The command line of an application, with commands of its own.
///
/// # Errors
///
/// Two commands have the same name.
pub(crate) fn whole(name: &str, version: &str, own: &[OwnCommand]) -> Result<Command, String> {
    own.iter().try_fold(clap_command(name, version), |whole, command| match whole.find_subcommand(command.name()) {
        Some(_) => Err(format!("App::command: there is a command {} already", command.name())),
        None => Ok(whole.subcommand(command.clap.clone())),
    })
}

/// Prints help to stdout, or an error to stderr. If neither is open, the exit code still reports the result.
fn show(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        logging::print_error(&error.render().to_string());
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Reads what clap has accepted.
fn read(matches: &ArgMatches) -> Result<(AppCommand, Overrides), clap::Error> {
    let command = match matches.subcommand() {
        Some(("config", inner)) => AppCommand::Config(config::read(inner)),
        Some(("actions", _)) => AppCommand::Actions,
        Some(("routes", inner)) => AppCommand::Routes { as_json: inner.get_flag("json") },
        Some(("nodes", inner)) => AppCommand::Nodes { as_json: inner.get_flag("json") },
        Some(("connections", inner)) => AppCommand::Connections(connections::read(inner)),
        Some(("rooms", inner)) => AppCommand::Rooms(rooms::read(inner)),
        Some(("doctor", inner)) => AppCommand::Doctor(doctor::read(inner)),
        Some(("tasks", inner)) => AppCommand::Tasks(tasks::read(inner)),
        Some(("call", inner)) => AppCommand::Call(call::read(inner)),
        Some(("cluster", inner)) => AppCommand::Cluster(cluster::read(inner)),
        Some(("start", inner)) if inner.get_flag("check") => AppCommand::Check,
        Some(("start", inner)) => read_start(inner),
        Some((name, inner)) => AppCommand::Own(name.to_owned(), inner.clone()),
        None => read_start(matches),
    };
    let inner = matches.subcommand().map_or(matches, |(_, inner)| inner);
    // A command of the application's own may have an argument of the same name and another type.
    let text = |id: &str| inner.try_get_one::<String>(id).ok().flatten().cloned();
    let overrides = Overrides {
        config_dir: inner.try_get_one::<PathBuf>("config").ok().flatten().cloned(),
        title: text("title"),
        environment: text("env"),
        roles: inner.try_get_one("roles").ok().flatten().cloned(),
    };
    let has_roles = matches!(
        command,
        AppCommand::Start(_) | AppCommand::Check | AppCommand::StartCluster(_) | AppCommand::Config(_)
    );
    if overrides.roles.is_some() && !has_roles {
        let error = "--roles is for `start`, `start cluster` and `config`: no other command runs a part of a node\n";
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, error));
    }
    if matches!(command, AppCommand::StartCluster(_)) && overrides.title.is_some() {
        let error = "--title names one node: the ids of workers are --worker-title-prefix and a number\n";
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, error));
    }
    Ok((command, overrides))
}

fn clap_command(name: &str, version: &str) -> Command {
    let config = Arg::new("config").long("config").value_name("DIR").global(true);
    let title = Arg::new("title").long("title").value_name("ID").global(true);
    let roles = Arg::new("roles").long("roles").value_name("ROLES").global(true);
    Command::new(name.to_owned())
        .version(version.to_owned())
        .arg(config.value_parser(value_parser!(PathBuf)).help("The folder of the settings"))
        .arg(title.value_parser(NonEmptyStringValueParser::new()).help("The id of the node"))
        .arg(Arg::new("env").long("env").value_name("NAME").global(true).help("development, test or production"))
        .arg(roles.value_parser(parse_roles).help("The parts of a node that this process runs: web,worker,scheduler"))
        .args(hidden_options())
        .subcommand(start_command().subcommand(cluster::start_command()))
        .subcommand(config::clap_command())
        .subcommand(Command::new("actions").about("Prints the actions and how clients reach them"))
        .subcommand(routes::clap_command())
        .subcommand(call::clap_command())
        .subcommand(cluster::clap_command())
        .subcommand(nodes::clap_command())
        .subcommand(connections::clap_command())
        .subcommand(rooms::clap_command())
        .subcommand(tasks::clap_command())
        .subcommand(doctor::clap_command())
        .subcommand(completions::clap_command())
}

fn read_start(options: &ArgMatches) -> AppCommand {
    match options.subcommand_matches("cluster") {
        Some(inner) => AppCommand::StartCluster(cluster::read_start(inner)),
        None => {
            let launchers = [(in_place::OPTION, Launcher::Predecessor), (worker::OPTION, Launcher::Parent)];
            let hidden = launchers.into_iter().find(|(option, _)| options.get_flag(option));
            AppCommand::Start(hidden.map_or(Launcher::Operator, |(_, launcher)| launcher))
        }
    }
}

fn start_command() -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue);
    Command::new("start")
        .about("Serves clients (the default)")
        .arg(check.help("Checks settings, definitions, routes and folders, and starts nothing"))
        .args(hidden_options())
}

/// The option of commands whose results programs read.
fn json_option() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Prints each result as one line of JSON")
}

/// The options that only processes give: a node that restarts in place, and the parent of workers.
fn hidden_options() -> [Arg; 2] {
    [in_place::OPTION, worker::OPTION].map(|name| Arg::new(name).long(name).action(ArgAction::SetTrue).hide(true))
}

/// Parses a list of roles as variables have it.
fn parse_roles(text: &str) -> Result<GivenRoles, String> {
    let roles = list_items(text).map(NodeRole::parse).collect::<Result<Vec<_>, _>>()?;
    if roles.is_empty() {
        return Err(format!("it must name one of {}", NodeRole::ALL.map(NodeRole::name).join(", ")));
    }
    Ok(GivenRoles(roles))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::deserialize(text.into_deserializer()).map_err(|error: ValueError| error.to_string())
}

/// An error with its details. The cause of an `internal` one is in the log.
fn describe(error: &ActionError) -> String {
    let mut text = format!("{}: {}", error.code(), error.message());
    for detail in error.details() {
        let _ = write!(text, "\n       {}: {}", detail.path, detail.message);
    }
    text
}

/// A limit with the rate that it has.
fn limit_cell(limit: &Limit, config: &Config) -> String {
    match config.limits.rate_of(limit.name(), limit.rate()) {
        Some(rate) => format!("{} {rate} {}", limit.name(), limit.counted_by()),
        None => format!("{} off", limit.name()),
    }
}

/// A table of the application's actions, one line each: with the prefix of their group, the guards and layers that it
/// adds, and all limits.
pub(crate) fn action_table(registry: &Registry, config: &Config) -> String {
    let prefix = config.web.prefix.trim_end_matches('/');
    let head = ["NAME", "VERSION", "HTTP", "WEBSOCKET", "GROUP", "GUARDS", "LIMITS", "LAYERS", "DESCRIPTION"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(registry.actions().map(|action| {
        let def = action.def;
        let routes =
            def.routes.iter().map(|route| format!("{} {prefix}{}", route.method.as_str(), path_of(def, route)));
        let websocket = match def.exposure {
            Exposure::Public => "yes",
            Exposure::HttpOnly => "blocked",
            Exposure::Internal => "internal",
        };
        let first_line = def.description.lines().next().unwrap_or_default();
        let routes: Vec<String> = routes.collect();
        let group = action.group().unwrap_or_default();
        [
            def.name.into(),
            def.version.to_string(),
            routes.join(", "),
            websocket.into(),
            group.prefix,
            group.guards.join(", "),
            action.limits().map(|limit| limit_cell(limit, config)).collect::<Vec<_>>().join(", "),
            group.layers.join(", "),
            first_line.into(),
        ]
    }));
    table::align(&rows)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn parse_line(line: &str) -> Result<(AppCommand, Overrides), clap::Error> {
        let arguments = std::iter::once("app").chain(line.split_whitespace()).map(OsString::from);
        whole("app", "1.0.0", &[]).unwrap().try_get_matches_from(arguments).and_then(|matches| read(&matches))
    }

    #[test]
    fn start_is_the_default_and_options_may_precede_or_follow_the_command() {
        let check = |line: &str, command: AppCommand, title: Option<&str>| {
            let (parsed, overrides) = parse_line(line).unwrap();
            assert_eq!((parsed, overrides.title.as_deref()), (command, title), "{line:?}");
        };
        let config = || AppCommand::Config(ConfigCommand { origins: false, as_json: false });
        check("", AppCommand::Start(Launcher::Operator), None);
        check("start", AppCommand::Start(Launcher::Operator), None);
        check("start --check", AppCommand::Check, None);
        check("config", config(), None);
        check("actions", AppCommand::Actions, None);
        check("--title a", AppCommand::Start(Launcher::Operator), Some("a"));
        check("--title a config", config(), Some("a"));
        check("config --title a", config(), Some("a"));
        let command = TasksCommand { operation: tasks::TasksOperation::RetryAll, as_json: false, yes: false };
        check("tasks retry --all --title a", AppCommand::Tasks(command), Some("a"));
    }

    #[test]
    fn unknown_arguments_exit_with_2() {
        for line in ["strat", "--nope", "config extra", "config --json", "completions", "completions csh", "--title="] {
            assert_eq!(parse_line(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn roles_are_for_commands_that_run_a_node_and_are_parsed_like_the_setting() {
        let both = Some(GivenRoles(vec![NodeRole::Worker, NodeRole::Scheduler]));
        for line in
            ["start --roles worker,scheduler", "--roles worker,,scheduler", "start cluster --roles worker,scheduler"]
        {
            let (_, overrides) = parse_line(line).unwrap();
            assert_eq!(overrides.roles, both, "{line}");
            assert!(overrides.options().is_empty(), "workers get them from their parent");
        }
        for (line, reason) in [
            ("start --roles worker,boss", r#""boss" is no role: there are web, worker and scheduler"#),
            ("start --roles=", "it must name one of web, worker, scheduler"),
            ("nodes --roles web", "--roles is for `start`"),
        ] {
            let error = parse_line(line).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_command_of_the_applications_own_has_a_name_of_its_own() {
        #[derive(clap::Parser)]
        #[command(name = "nodes")]
        struct Nodes {}

        #[derive(clap::Parser)]
        #[command(name = "seed")]
        struct Seed {
            #[arg(long)]
            title: Option<u32>,
        }

        let nodes = OwnCommand::new(async |_, _: Nodes| Ok::<_, ActionError>(()));
        let error = whole("app", "1.0.0", &[nodes]).unwrap_err();
        assert_eq!(error, "App::command: there is a command nodes already");
        let seed = OwnCommand::new(async |_, seed: Seed| {
            assert_eq!(seed.title, Some(5));
            Ok::<_, ActionError>(())
        });
        let whole = whole("app", "1.0.0", &[seed]).unwrap();
        let matches = whole.try_get_matches_from(["app", "seed", "--title", "5"]).unwrap();
        let (command, overrides) = read(&matches).unwrap();
        assert!(matches!(command, AppCommand::Own(name, _) if name == "seed"));
        assert_eq!(overrides, Overrides::default());
    }
}

//! The command `call`: runs one action, and prints its answer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use futures_util::StreamExt;
use phalanx_core::answer::BodySource;
use phalanx_core::error::Chain;
use phalanx_core::registry::{RegisteredAction, Registry};
use phalanx_core::{ActionError, Answer, Content, ErrorKind, Params};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::output::{unless_left, write};
use super::visit::{enter, prepare};
use super::{describe, parse_duration, show};
use crate::app::{App, failed};
use crate::logging;
use crate::settings::{Settings, nearest};

/// A call of an action. Its other arguments can be read once the action is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallCommand {
    pub(crate) action: String,
    pub(crate) arguments: Vec<OsString>,
}

/// The way in which a call ends that has no answer.
enum NoAnswer {
    /// The arguments do not fit the action, or help was printed.
    Arguments(clap::Error),
    /// The input cannot be used (exit code 2).
    Input(String),
    /// The call failed (exit code 1).
    Failed(String),
}

/// The options of every call.
const OPTIONS: [&str; 4] = ["json", "version", "timeout", "help"];

/// The subcommand for clap. An action is to clap an unknown subcommand, whose arguments are taken as they are.
pub(super) fn clap_command() -> Command {
    Command::new("call")
        .about("Runs an action in this process, as a guest of the cluster at REDIS_URL, and prints its answer")
        .override_usage("call <ACTION> [--FIELD VALUE]... [--json JSON] [--version N] [--timeout TIME]")
        .after_help(
            "`call ACTION --help` prints the fields of an action; `actions` lists them. Options come before ACTION.",
        )
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(value_parser!(OsString))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> CallCommand {
    let (action, inner) = matches.subcommand().unwrap_or(("", matches));
    let arguments = inner.try_get_many::<OsString>("").ok().flatten();
    CallCommand { action: action.to_owned(), arguments: arguments.into_iter().flatten().cloned().collect() }
}

/// Runs a call. Exit codes: 0; 1 if the call failed; 2 if its input cannot be used.
pub(crate) fn run(app: App, settings: Settings, command: &CallCommand) -> ExitCode {
    let (runtime, settings) = match prepare(settings) {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(visit(app, settings, command));
    runtime.shutdown_background(); // the application may have left tasks running
    match ended {
        Ok(()) => {
            logging::flush_at_exit();
            ExitCode::SUCCESS
        }
        Err(NoAnswer::Arguments(error)) => show(&error),
        Err(NoAnswer::Input(reason)) => {
            failed(&reason);
            ExitCode::from(2)
        }
        Err(NoAnswer::Failed(reason)) => failed(&reason),
    }
}

async fn visit(app: App, settings: Settings, command: &CallCommand) -> Result<(), NoAnswer> {
    let max_body = settings.config.web.max_body.as_u64();
    let guest = enter(app, settings).await.map_err(NoAnswer::Failed)?;
    let ended = async {
        let call = PlannedCall::read(guest.registry(), command, max_body)?;
        guest.start_initializers().await.map_err(|error| NoAnswer::Failed(Chain(&error).to_string()))?;
        let calling = async {
            let answer = guest.call(&command.action, Some(call.version), call.params).await?;
            print(answer).await
        };
        match call.timeout {
            Some(limit) => timeout(limit, calling)
                .await
                .unwrap_or_else(|_| Err(ActionError::of(ErrorKind::Timeout, "the call did not end within --timeout"))),
            None => calling.await,
        }
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::Malformed => NoAnswer::Input(describe(&error)),
            _ => NoAnswer::Failed(describe(&error)),
        })
    };
    let ended = ended.await;
    guest.leave().await;
    ended
}

/// A call with its input.
struct PlannedCall {
    version: u32,
    params: Params,
    timeout: Option<Duration>,
}

impl PlannedCall {
    fn read(registry: &Registry, command: &CallCommand, max_body: u64) -> Result<Self, NoAnswer> {
        // The version decides about the fields, so it is read first.
        let wanted = version_of(&command.arguments);
        let action = registry.find(&command.action, wanted);
        let action = action.ok_or_else(|| NoAnswer::Input(unknown(registry, &command.action)))?;
        let schema = (action.def.input)();
        let fields = fields(schema.as_value());
        let arguments = clap_command_of(action, &fields).try_get_matches_from(&command.arguments);
        let matches = arguments.map_err(NoAnswer::Arguments)?;
        let mut params = Params::default();
        let mut objects = Map::new();
        let mut given = Vec::new();
        for field in &fields {
            for value in matches.get_many::<String>(&field.name).into_iter().flatten() {
                given.push(field.name.as_str());
                if field.kind == FieldKind::Object {
                    let value: Value = serde_json::from_str(value)
                        .map_err(|error| NoAnswer::Input(format!("--{}: {error}", field.name)))?;
                    objects.insert(field.name.clone(), value);
                } else {
                    let pushed = params.push_field(&field.name, value.clone());
                    pushed.map_err(|error| NoAnswer::Input(describe(&error)))?;
                }
            }
        }
        if let Some(source) = matches.get_one::<String>("json") {
            let text = read_json(source, action.def.body.max_body.unwrap_or(max_body)).map_err(NoAnswer::Input)?;
            let value = serde_json::from_slice(&text).map_err(|error| NoAnswer::Input(format!("--json: {error}")))?;
            let Value::Object(object) = value else {
                return Err(NoAnswer::Input("--json: the input of an action is an object".to_owned()));
            };
            if let Some(twice) = given.iter().find(|name| object.contains_key(**name)) {
                return Err(NoAnswer::Input(format!("{twice} is given by --{twice} and in --json")));
            }
            objects.extend(object);
        }
        let body = Value::Object(objects).to_string();
        params.set_json_body(body.as_bytes()).map_err(|error| NoAnswer::Input(describe(&error)))?;
        let timeout = matches.get_one::<Duration>("timeout").copied();
        Ok(Self { version: action.def.version, params, timeout })
    }
}

/// The value of `--version`, if it is a number; clap reports any other later.
fn version_of(arguments: &[OsString]) -> Option<u32> {
    let mut texts = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(text) = texts.next() {
        if let Some(value) = text.strip_prefix("--version") {
            return match value.strip_prefix('=') {
                Some(number) => number.parse().ok(),
                None => texts.next()?.parse().ok(),
            };
        }
    }
    None
}

fn unknown(registry: &Registry, name: &str) -> String {
    let versions: Vec<_> = registry
        .actions()
        .filter(|action| action.def.name == name)
        .map(|action| action.def.version.to_string())
        .collect();
    if versions.is_empty() {
        let near = nearest(name, registry.actions().map(|action| action.def.name));
        return format!("there is no action {name}{near}");
    }
    format!("{name} has no such version; it has {}", versions.join(", "))
}

/// A field of an input that has an option of its own.
struct FieldOption {
    name: String,
    description: String,
    kind: FieldKind,
}

/// The form of a field's value on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldKind {
    /// `--field` alone is true.
    Flag,
    /// JSON.
    Object,
    /// Text as in a query; a list is the option several times.
    Text,
}

/// How many names of types are followed to learn the kind of a field.
const MAX_DEPTH: u8 = 8;

impl FieldKind {
    /// Reads the kind off the schema of a field, of an `Option` and of a named type as well.
    fn of(schema: &Value, root: &Value, depth: u8) -> Self {
        let kind = schema.get("type");
        let is = |name: &str| {
            kind.is_some_and(|kind| {
                kind == name || kind.as_array().is_some_and(|kinds| kinds.iter().any(|it| it == name))
            })
        };
        let named = schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
        let parts = schema.get("anyOf").and_then(Value::as_array);
        match (named, parts) {
            _ if is("boolean") => Self::Flag,
            _ if is("object") => Self::Object,
            _ if depth == 0 => Self::Text, // a type that contains itself
            (Some(named), _) => Self::of(named, root, depth - 1),
            (_, Some(parts)) => parts
                .iter()
                .map(|part| Self::of(part, root, depth - 1))
                .find(|kind| *kind != Self::Text)
                .unwrap_or(Self::Text),
            _ => Self::Text,
        }
    }
}

/// The fields of a schema. Those that are named like an option of every call can be given by `--json`.
fn fields(schema: &Value) -> Vec<FieldOption> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|required| required.iter().any(|it| it == name));
    let own = properties.into_iter().flatten().filter(|(name, _)| !OPTIONS.contains(&name.as_str()));
    own.map(|(name, field)| {
        let text = field.get("description").and_then(Value::as_str).unwrap_or_default();
        let needed = if is_required(name) { " [required]" } else { "" };
        let description = format!("{text}{needed}").trim().to_owned();
        FieldOption { name: name.clone(), description, kind: FieldKind::of(field, schema, MAX_DEPTH) }
    })
    .collect()
}

fn clap_command_of(action: &RegisteredAction, fields: &[FieldOption]) -> Command {
    let mut command = Command::new(format!("call {}", action.def.name))
        .about(action.def.description)
        .no_binary_name(true)
        .disable_version_flag(true)
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("JSON")
                .help("The input, or fields of it: JSON, @file, or - for stdin"),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .value_name("N")
                .value_parser(value_parser!(u32))
                .help("The version; else the newest"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("TIME")
                .value_parser(parse_duration)
                .help("The longest time for the call, such as `5s`"),
        );
    for field in fields {
        let option = Arg::new(field.name.clone())
            .long(field.name.clone())
            .value_name(if field.kind == FieldKind::Object { "JSON" } else { "VALUE" })
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .help(field.description.clone());
        command = command.arg(if field.kind == FieldKind::Flag {
            option.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            option
        });
    }
    command
}

/// Reads the value of `--json`: the text itself, `@file`, or `-` for stdin.
fn read_json(source: &str, max_bytes: u64) -> Result<Vec<u8>, String> {
    let read = |input: &mut dyn Read| {
        let mut text = Vec::new();
        input.take(max_bytes.saturating_add(1)).read_to_end(&mut text).map(|_| text)
    };
    let text = match (source, source.strip_prefix('@')) {
        ("-", _) => read(&mut io::stdin().lock()).map_err(|error| format!("--json: stdin: {error}"))?,
        (_, Some(path)) => {
            File::open(path).and_then(|mut file| read(&mut file)).map_err(|error| format!("--json: {path}: {error}"))?
        }
        (text, None) => text.as_bytes().to_vec(),
    };
    if text.len() as u64 > max_bytes {
        return Err(format!("--json: the input has more than {max_bytes} bytes, which is the bound of its action"));
    }
    Ok(text)
}

/// Prints an answer as it would be over HTTP.
async fn print(answer: Answer) -> Result<(), ActionError> {
    match answer.content {
        Content::Json(object) => write(&[&object, b"\n"]).map_err(ActionError::internal),
        Content::Body(body) => match body.source {
            BodySource::Bytes(bytes) => write(&[&bytes]).map_err(ActionError::internal),
            BodySource::File(path) => {
                let mut file = File::open(path).map_err(ActionError::internal)?;
                unless_left(io::copy(&mut file, &mut io::stdout().lock()).map(drop)).map_err(ActionError::internal)
            }
            BodySource::Stream(mut stream) => {
                while let Some(piece) = stream.next().await {
                    write(&[&piece?]).map_err(ActionError::internal)?;
                }
                Ok(())
            }
        },
    }
}

//! The command `tasks`: its subcommands and their arguments.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use phalanx_core::backend::SERIES_MINUTES;
use phalanx_core::config::TaskSettings;
use serde_json::Value;

use super::confirm::yes_option;
use super::page::{self, ListPart, paged};
use super::{json_option, parse_duration};

mod print;
mod run;

pub(crate) use run::run;

/// A look at the task queue of the cluster, or a change to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TasksCommand {
    pub(crate) operation: TasksOperation,
    /// Whether each result is one line of JSON.
    pub(crate) as_json: bool,
    /// Whether it is confirmed.
    pub(crate) yes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TasksOperation {
    /// The numbers of all queues.
    Stats,
    /// The attempts of each task in the last minutes; again and again, if it is watched.
    Series {
        minutes: u64,
        is_watched: bool,
    },
    /// The jobs that wait in a queue.
    Waiting(String, ListPart),
    Running(ListPart),
    Enqueue(NewTask),
    Failed(ListPart),
    Retry(String),
    RetryAll,
    Cancel(String),
    Delete(String),
    Pause(String),
    Resume(String),
    /// Which nodes are quiet.
    QuietNodes,
    Quiet(String),
    EndQuiet(String),
}

impl TasksOperation {
    /// Whether it ends jobs, or has many run again.
    pub(super) fn is_destructive(&self) -> bool {
        matches!(self, Self::RetryAll | Self::Cancel(_) | Self::Delete(_))
    }
}

/// A job to be enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTask {
    pub(crate) name: String,
    pub(crate) input: Option<Value>,
    pub(crate) queue: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) unique: Option<String>,
    pub(crate) delay: Option<Duration>,
}

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    let queue = || Arg::new("queue").value_name("QUEUE").value_parser(parse_queue);
    let id = || Arg::new("id").value_name("ID");
    Command::new("tasks")
        .about("Looks at the jobs of the cluster at REDIS_URL, and changes them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(json_option().global(true))
        .subcommand(paged(
            Command::new("list")
                .about("Prints the numbers of all queues, or the jobs that wait in one")
                .arg(queue().help("The queue whose jobs are printed")),
        ))
        .subcommand(
            Command::new("stats")
                .about("Prints how many attempts of each task ended lately, how many failed, and how long they took")
                .arg(
                    Arg::new("minutes")
                        .long("minutes")
                        .value_name("COUNT")
                        .value_parser(clap::value_parser!(u64).range(1..=SERIES_MINUTES))
                        .default_value("60")
                        .help("The last minutes, with the one that has begun"),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .action(ArgAction::SetTrue)
                        .help("Prints them every two seconds, until it is interrupted"),
                ),
        )
        .subcommand(paged(Command::new("running").about("Prints the attempts that run, on all nodes")))
        .subcommand(enqueue_command())
        .subcommand(paged(Command::new("failed").about("Prints the failed jobs, the oldest first")))
        .subcommand(
            Command::new("retry")
                .about("Has a failed job run again, or all that are there now")
                .arg(id().help("The id of the job"))
                .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("All failed jobs"))
                .group(ArgGroup::new("which").args(["id", "all"]).required(true))
                .arg(yes_option()),
        )
        .subcommand(
            Command::new("cancel")
                .about("Ends a job that waits, is delayed or runs; a failed one stays listed")
                .arg(id().required(true))
                .arg(yes_option()),
        )
        .subcommand(
            Command::new("delete")
                .about("Deletes a job in any state; one that runs is ended at its next await")
                .arg(id().required(true))
                .arg(yes_option()),
        )
        .subcommand(
            Command::new("pause")
                .about("Stops the fetching from a queue on all nodes; jobs that run go on")
                .arg(queue().required(true)),
        )
        .subcommand(
            Command::new("resume").about("Resumes the fetching from a queue on all nodes").arg(queue().required(true)),
        )
        .subcommand(
            Command::new("quiet")
                .about("Has a node fetch no more jobs and finish those that it runs, or prints which nodes do so")
                .arg(Arg::new("node").value_name("NODE").help("The id of the node"))
                .arg(
                    Arg::new("off")
                        .long("off")
                        .action(ArgAction::SetTrue)
                        .requires("node")
                        .help("Has it fetch jobs again"),
                ),
        )
}

fn enqueue_command() -> Command {
    Command::new("enqueue")
        .about("Enqueues a job, and prints its id")
        .arg(Arg::new("name").value_name("NAME").required(true).help("The name of the task"))
        .arg(Arg::new("input").value_name("JSON").value_parser(parse_json).help("Its input, without one `{}`"))
        .arg(Arg::new("queue").long("queue").value_name("QUEUE").help("Another queue than the task's own"))
        .arg(Arg::new("id").long("id").value_name("ID").help("An id that makes the enqueue safe to repeat"))
        .arg(Arg::new("unique").long("unique").value_name("KEY").help("A key that one job of the task has at a time"))
        .arg(
            Arg::new("delay")
                .long("delay")
                .value_name("TIME")
                .value_parser(parse_duration)
                .help("The time until it is due, such as `90s` or `2h`"),
        )
}

fn parse_queue(name: &str) -> Result<String, &'static str> {
    let error = "a queue has 1 to 100 characters of A-Z a-z 0-9 : . _ -";
    TaskSettings::is_queue(name).then(|| name.to_owned()).ok_or(error)
}

fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> TasksCommand {
    let (name, inner) = matches.subcommand().unwrap_or(("list", matches));
    let text = |id: &str| inner.get_one::<String>(id).cloned();
    let required = |id: &str| text(id).unwrap_or_default();
    let page = || page::read(inner);
    let operation = match name {
        "stats" => TasksOperation::Series {
            minutes: inner.get_one::<u64>("minutes").copied().unwrap_or(60),
            is_watched: inner.get_flag("watch"),
        },
        "running" => TasksOperation::Running(page()),
        "enqueue" => TasksOperation::Enqueue(NewTask {
            name: required("name"),
            input: inner.get_one::<Value>("input").cloned(),
            queue: text("queue"),
            id: text("id"),
            unique: text("unique"),
            delay: inner.get_one::<Duration>("delay").copied(),
        }),
        "failed" => TasksOperation::Failed(page()),
        "retry" => text("id").map_or(TasksOperation::RetryAll, TasksOperation::Retry),
        "cancel" => TasksOperation::Cancel(required("id")),
        "delete" => TasksOperation::Delete(required("id")),
        "pause" => TasksOperation::Pause(required("queue")),
        "resume" => TasksOperation::Resume(required("queue")),
        "quiet" => match text("node") {
            Some(node) if inner.get_flag("off") => TasksOperation::EndQuiet(node),
            Some(node) => TasksOperation::Quiet(node),
            None => TasksOperation::QuietNodes,
        },
        _ => text("queue").map_or(TasksOperation::Stats, |queue| TasksOperation::Waiting(queue, page())),
    };
    let yes = inner.try_get_one::<bool>("yes").ok().flatten().is_some_and(|yes| *yes);
    TasksCommand { operation, as_json: matches.get_flag("json"), yes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<TasksCommand, i32> {
        let arguments = std::iter::once("tasks").chain(line.split_whitespace());
        let matches = clap_command().try_get_matches_from(arguments).map_err(|error| error.exit_code())?;
        Ok(read(&matches))
    }

    #[test]
    fn arguments_are_read() {
        let page = |skip, limit| ListPart { skip, limit };
        let job = NewTask { name: "n".into(), input: None, queue: None, id: None, unique: None, delay: None };
        let full = NewTask {
            name: "n".into(),
            input: Some(serde_json::json!({ "a": 1 })),
            queue: Some("q".into()),
            id: Some("i".into()),
            unique: Some("u".into()),
            delay: Some(Duration::from_secs(90)),
        };
        for (line, operation, as_json) in [
            ("list", TasksOperation::Stats, false),
            ("list mail --limit 5 --json", TasksOperation::Waiting("mail".into(), page(0, 5)), true),
            ("--json running --skip 7", TasksOperation::Running(page(7, 100)), true),
            ("stats", TasksOperation::Series { minutes: 60, is_watched: false }, false),
            ("stats --watch --minutes 5", TasksOperation::Series { minutes: 5, is_watched: true }, false),
            ("enqueue n", TasksOperation::Enqueue(job), false),
            (r#"enqueue n {"a":1} --queue q --id i --unique u --delay 90s"#, TasksOperation::Enqueue(full), false),
            ("failed", TasksOperation::Failed(page(0, 100)), false),
            ("retry x", TasksOperation::Retry("x".into()), false),
            ("retry --all", TasksOperation::RetryAll, false),
            ("retry --all --yes", TasksOperation::RetryAll, false),
            ("cancel x", TasksOperation::Cancel("x".into()), false),
            ("delete x", TasksOperation::Delete("x".into()), false),
            ("pause q", TasksOperation::Pause("q".into()), false),
            ("resume q", TasksOperation::Resume("q".into()), false),
            ("quiet", TasksOperation::QuietNodes, false),
            ("quiet n", TasksOperation::Quiet("n".into()), false),
            ("quiet n --off", TasksOperation::EndQuiet("n".into()), false),
        ] {
            assert_eq!(parse(line), Ok(TasksCommand { operation, as_json, yes: line.contains("--yes") }), "{line}");
        }
    }

    #[test]
    fn wrong_arguments_exit_with_2() {
        for line in [
            "",
            "nope",
            "retry",
            "retry x --all",
            "cancel",
            "pause",
            "pause a/b",
            "list --limit many",
            "enqueue n {",
            "enqueue n --delay 5",
            "failed x",
            "stats --minutes 0",
            "stats --minutes 1441",
            "quiet --off",
            "pause q --yes",
        ] {
            assert_eq!(parse(line), Err(2), "{line}");
        }
    }
}

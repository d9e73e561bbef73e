//! Commands of the application's own.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use phalanx_core::error::Chain;
use phalanx_core::{BoxError, Node};

use super::visit::{enter, prepare};
use crate::app::{App, failed};
use crate::logging;
use crate::settings::Settings;

/// A command that the application adds.
pub(crate) struct OwnCommand {
    /// Its definition for clap.
    pub(super) clap: Command,
    run: RunOwn,
}

type RunOwn = Box<dyn FnOnce(Node, &ArgMatches) -> Result<OwnFuture, clap::Error> + Send>;

/// It runs on the main thread, so it need not be `Send`.
type OwnFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

impl OwnCommand {
    pub(crate) fn new<C, E>(run: impl AsyncFnOnce(Node, C) -> Result<(), E> + Send + 'static) -> Self
    where
        C: CommandFactory + FromArgMatches + 'static,
        E: Into<BoxError> + 'static,
    {
        let run: RunOwn = Box::new(move |node, matches| {
            let arguments = C::from_arg_matches(matches)?;
            Ok(Box::pin(async move { run(node, arguments).await.map_err(Into::into) }))
        });
        Self { clap: C::command(), run }
    }

    pub(super) fn name(&self) -> &str {
        self.clap.get_name()
    }
}

impl fmt::Debug for OwnCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnCommand({})", self.name())
    }
}

/// Runs the command with that name. Exit codes: 0; 1 with the error; 2 if the arguments do not fit after all.
pub(crate) fn run(mut app: App, settings: Settings, name: &str, matches: &ArgMatches) -> ExitCode {
    let commands = app.take_commands();
    let Some(command) = commands.into_iter().find(|command| command.name() == name) else {
        return failed(&format!("there is no command {name}"));
    };
    let (runtime, settings) = match prepare(settings) {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(async {
        let guest = enter(app, settings).await?;
        let ended = async {
            guest.start_initializers().await?;
            (command.run)(guest.node().clone(), matches)?.await
        };
        let ended = ended.await;
        guest.leave().await;
        ended
    });
    runtime.shutdown_background(); // the application may have left tasks running
    match ended {
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS, // the reader of its output has left
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(error) => super::show(&error),
            Err(error) => failed(&Chain(&*error)),
        },
        Ok(()) => {
            logging::flush_at_exit();
            ExitCode::SUCCESS
        }
    }
}

fn is_broken_pipe(error: &BoxError) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

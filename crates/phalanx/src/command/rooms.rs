//! The command `rooms`: the rooms of the cluster, and how many members they have.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use futures_util::{StreamExt, TryStreamExt, stream};
use phalanx_core::{ActionError, ErrorKind, Node};
use serde_json::json;

use super::output::Printed;
use super::page::{self, ListPart, paged};
use super::visit::{self, VisitLimit};
use super::{describe, json_option, table};
use crate::app::App;
use crate::settings::Settings;

/// How many rooms are counted at a time.
const AT_ONCE: usize = 16;

/// A look at rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomsCommand {
    page: ListPart,
    as_json: bool,
}

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    let about = "Prints the rooms of the cluster at REDIS_URL by name, and how many members they have";
    paged(Command::new("rooms").about(about)).arg(json_option())
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> RoomsCommand {
    RoomsCommand { page: page::read(matches), as_json: matches.get_flag("json") }
}

/// Prints the rooms.
pub(crate) fn run(app: App, settings: Settings, command: RoomsCommand) -> ExitCode {
    visit::run(app, settings, command.as_json, VisitLimit::Whole, async |node, _| {
        rooms(node, command.page).await.map_err(|error| describe(&error))
    })
}

async fn rooms(node: &Node, page: ListPart) -> Result<Printed, ActionError> {
    let mut names = node.rooms().list().await?;
    names.sort_unstable();
    let count = names.len();
    let part = names.into_iter().skip(page.skip).take(page.limit);
    let counting = stream::iter(part).map(async |room| match node.rooms().status(&room).await {
        Ok(status) => Ok(Some((room, status.members.count))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None), // it was destroyed meanwhile
        Err(error) => Err(error),
    });
    let counted: Vec<Option<(String, usize)>> = counting.buffered(AT_ONCE).try_collect().await?;
    let mut rows = vec![["ROOM", "MEMBERS"].map(str::to_owned)];
    let mut documents = Vec::new();
    for (room, members) in counted.into_iter().flatten() {
        documents.push(json!({ "room": room, "members": members }));
        rows.push([room, members.to_string()]);
    }
    let document = json!({ "rooms": documents, "count": count });
    Ok(Printed { text: table::align(&rows), lines: vec![document], ..Printed::default() })
}

//! The command `connections`: the connections of all nodes.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use phalanx_core::{ConnectionList, Node};
use serde_json::json;

use super::output::{Printed, time};
use super::visit::{self, ReplyLimit, VisitLimit};
use super::{describe, json_option, table};
use crate::app::App;
use crate::settings::Settings;

/// A look at connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionsCommand {
    node: Option<String>,
    room: Option<String>,
    limit: usize,
    as_json: bool,
}

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    let limit = value_parser!(u64).range(1..=ConnectionList::MAX as u64);
    Command::new("connections")
        .about("Prints the connections of the cluster at REDIS_URL, those first that have been open for longest")
        .arg(Arg::new("node").long("node").value_name("ID").help("Those of the node with this id"))
        .arg(Arg::new("room").long("room").value_name("NAME").help("Those in this room"))
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .default_value("100")
                .value_parser(limit)
                .help("How many are printed at most, up to 1000"),
        )
        .arg(json_option())
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> ConnectionsCommand {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let limit = matches.get_one::<u64>("limit").and_then(|limit| usize::try_from(*limit).ok());
    ConnectionsCommand {
        node: text("node"),
        room: text("room"),
        limit: limit.unwrap_or(ConnectionList::MAX),
        as_json: matches.get_flag("json"),
    }
}

/// Prints the connections.
pub(crate) fn run(app: App, settings: Settings, command: &ConnectionsCommand) -> ExitCode {
    visit::run(app, settings, command.as_json, VisitLimit::Whole, async |node, replies| {
        connections(node, command, replies).await
    })
}

async fn connections(node: &Node, command: &ConnectionsCommand, replies: ReplyLimit) -> Result<Printed, String> {
    let ConnectionsCommand { node: of, room, limit, .. } = command;
    let read = node.cluster().connections(of.as_deref(), room.as_deref(), *limit, replies.left()).await;
    let replies = read.map_err(|error| describe(&error))?;
    let (mut all, mut count, mut problems) = (Vec::new(), 0, Vec::new());
    problems.extend(visit::missing(&replies.missing));
    for (name, reply) in replies.replies {
        match reply {
            Ok(list) => {
                count += list.count;
                all.extend(list.listed.into_iter().map(|connection| (name.clone(), connection)));
            }
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    all.sort_by(|(_, a), (_, b)| (a.connected_at, &a.id).cmp(&(b.connected_at, &b.id)));
    all.truncate(*limit);
    let mut rows = vec![["ID", "NODE", "CLIENT", "SINCE", "ROOMS", "PENDING ACTIONS"].map(str::to_owned)];
    let mut documents = Vec::new();
    for (node, connection) in &all {
        let since = time(connection.connected_at);
        rows.push([
            connection.id.clone(),
            node.clone(),
            connection.remote.to_string(),
            since.clone(),
            connection.rooms.to_string(),
            connection.pending_actions.to_string(),
        ]);
        documents.push(json!({
            "id": connection.id,
            "node": node,
            "client": connection.remote,
            "connectedAt": since,
            "rooms": connection.rooms,
            "pendingActions": connection.pending_actions,
        }));
    }
    let mut text = table::align(&rows);
    if all.len() < count {
        text.push_str(&format!("\n{} of {count} connections\n", all.len()));
    }
    let document = json!({ "connections": documents, "count": count, "missing": replies.missing });
    let problem = (!problems.is_empty()).then(|| problems.join("\n       "));
    Ok(Printed { text, lines: vec![document], problem, ..Printed::default() })
}

//! The command `nodes`: the nodes of the cluster, as its backend lists them and as they describe themselves.

use std::process::ExitCode;

use clap::Command;
use phalanx_core::backend::NodeRecord;
use phalanx_core::{ApplyError, Node, NodeReplies, NodeReport};
use serde_json::{Value, json};

use super::output::{Printed, time};
use super::visit::{self, ReplyLimit, VisitLimit};
use super::{describe, json_option, table};
use crate::app::App;
use crate::settings::Settings;

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    Command::new("nodes").about("Prints the nodes of the cluster at REDIS_URL").arg(json_option())
}

/// Prints the nodes.
pub(crate) fn run(app: App, settings: Settings, as_json: bool) -> ExitCode {
    visit::run(app, settings, as_json, VisitLimit::Whole, nodes)
}

async fn nodes(node: &Node, limit: ReplyLimit) -> Result<Printed, String> {
    let read = async { Ok((node.cluster().nodes().await?, node.cluster().reports(limit.left()).await?)) };
    let (records, reports) = read.await.map_err(|error| describe(&error))?;
    let heads = ["ID", "GENERATION", "VERSION", "ROLES", "WEB", "ADMIN", "SINCE", "CONNECTIONS", "STATE"];
    let mut rows = vec![heads.map(str::to_owned)];
    let mut documents = Vec::new();
    for record in &records {
        let (row, document) = shown(record, report_of(record, &reports));
        rows.push(row);
        documents.push(document);
    }
    let document = json!({ "nodes": documents, "missing": reports.missing });
    Ok(Printed {
        text: table::align(&rows),
        lines: vec![document],
        problem: visit::missing(&reports.missing),
        ..Printed::default()
    })
}

/// The reply of a node, which has the name of its start where another node has the same id.
fn report_of<'a>(
    record: &NodeRecord,
    reports: &'a NodeReplies<NodeReport>,
) -> Option<&'a Result<NodeReport, ApplyError>> {
    let full = format!("{}@{}", record.id, record.boot);
    reports.replies.get(&full).or_else(|| reports.replies.get(&record.id))
}

fn shown(record: &NodeRecord, reply: Option<&Result<NodeReport, ApplyError>>) -> ([String; 9], Value) {
    let report = reply.and_then(|reply| reply.as_ref().ok());
    let state = match reply {
        None => "no reply".to_owned(),
        Some(Err(ApplyError::UnknownMethod)) => "of a release without reports".to_owned(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(report)) if report.problems.is_empty() => "ready".to_owned(),
        Some(Ok(report)) => report.problems.join(", "),
    };
    let address = |name: &str| {
        let address = report.and_then(|report| report.addresses.get(name));
        address.map(ToString::to_string).unwrap_or_default()
    };
    let row = [
        record.id.clone(),
        record.generation.to_string(),
        record.version.clone(),
        record.roles.join(", "),
        address("web"),
        address("admin"),
        time(record.started_at),
        report.map(|report| report.connections.to_string()).unwrap_or_default(),
        state.clone(),
    ];
    let document = json!({
        "id": record.id,
        "generation": record.generation.as_str(),
        "boot": record.boot.as_str(),
        "earlier": record.earlier.iter().map(|generation| generation.as_str()).collect::<Vec<_>>(),
        "version": record.version,
        "roles": record.roles,
        "startedAt": time(record.started_at),
        "addresses": report.map(|report| &report.addresses),
        "pid": report.map(|report| report.pid),
        "uptimeMs": report.map(|report| report.uptime_ms),
        "connections": report.map(|report| report.connections),
        "state": state,
    });
    (row, document)
}

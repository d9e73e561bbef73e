//! Actions that reach other nodes: calls to connections, the list of nodes, a call to all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx::NodeRecord;
use phalanx::prelude::*;
use serde_json::Value;

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Apply {
    id: String,
    method: Option<String>,
    args: Option<Value>,
    timeoutMs: Option<u64>,
}

#[output]
pub(crate) struct Applied {
    result: Value,
}

/// Runs a method on a connection of any node.
#[action(name = "connectionApply", post = "/connections/{id}/apply")]
pub(crate) async fn connection_apply(ctx: Context, input: Apply) -> Result<Applied, ActionError> {
    let id = ConnectionId::parse(&input.id)?;
    let (method, args) = (input.method.unwrap_or_default(), input.args.unwrap_or_default());
    let timeout = input.timeoutMs.map(Duration::from_millis);
    Ok(Applied { result: ctx.connections().apply_within(&id, &method, args, timeout).await? })
}

#[output]
pub(crate) struct Nodes {
    nodes: Vec<NodeInfo>,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeInfo {
    id: String,
    generation: String,
    version: String,
    started_at: u64,
    roles: Vec<String>,
    #[serde(rename = "self")]
    is_self: bool,
}

/// Lists the nodes of the cluster.
#[action(get)]
pub(crate) async fn nodes(ctx: Context) -> Result<Nodes, ActionError> {
    let info = |node: NodeRecord| NodeInfo {
        is_self: node.generation == ctx.node().generation(),
        id: node.id,
        generation: node.generation.to_string(),
        version: node.version,
        started_at: node.started_at,
        roles: node.roles,
    };
    Ok(Nodes { nodes: ctx.cluster().nodes().await?.into_iter().map(info).collect() })
}

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct NodesAsk {
    timeoutMs: Option<u64>,
}

#[output]
pub(crate) struct Uptimes {
    answers: BTreeMap<String, Uptime>,
    missing: Vec<String>,
}

#[output]
pub(crate) struct Uptime {
    uptime: u64,
}

/// Returns the uptime of the node that runs it, in milliseconds.
#[remote]
pub(crate) async fn uptime(ctx: Context) -> Result<Uptime, ActionError> {
    Ok(Uptime { uptime: ctx.node().uptime().as_millis() as u64 })
}

/// Calls all nodes for their uptime; nodes without an answer in time, and those that failed, are `missing`.
#[action(name = "nodesAsk", get = "/nodes/ask")]
pub(crate) async fn nodes_ask(ctx: Context, input: NodesAsk) -> Result<Uptimes, ActionError> {
    let timeout = Duration::from_millis(input.timeoutMs.unwrap_or(1000));
    let all = ctx.cluster().call_all::<uptime>(NoInput::default(), timeout).await?;
    let (mut answers, mut missing) = (BTreeMap::new(), all.missing);
    for (id, answer) in all.replies {
        match answer {
            Ok(uptime) => drop(answers.insert(id, uptime)),
            Err(_) => missing.push(id),
        }
    }
    Ok(Uptimes { answers, missing })
}

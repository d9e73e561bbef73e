//! The cluster: calls to connections, and who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx::backend::NodeRecord;
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

/// Runs a method on a connection, wherever it lives.
#[action(name = "connectionApply", post = "/connections/{id}/apply")]
pub(crate) async fn connection_apply(ctx: Context, input: Apply) -> Result<Applied, ActionError> {
    let id = ConnectionId::parse(&input.id)?;
    let (method, args) = (input.method.unwrap_or_default(), input.args.unwrap_or_default());
    let limit = input.timeoutMs.map(Duration::from_millis);
    Ok(Applied { result: ctx.connections().apply_within(&id, &method, args, limit).await? })
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

/// Who is in the cluster.
#[action(get)]
pub(crate) async fn nodes(ctx: Context) -> Result<Nodes, ActionError> {
    let info = |node: NodeRecord| NodeInfo {
        is_self: node.generation == ctx.generation(),
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
pub(crate) struct Ask {
    timeoutMs: Option<u64>,
}

#[output]
pub(crate) struct Asked {
    answers: BTreeMap<String, Uptime>,
    missing: Vec<String>,
}

#[output]
pub(crate) struct Uptime {
    uptime: u64,
}

/// How long this node has been up.
#[remote]
pub(crate) async fn uptime(ctx: Context) -> Result<Uptime, ActionError> {
    Ok(Uptime { uptime: ctx.uptime().as_millis() as u64 })
}

/// Asks every node how long it has been up.
#[action(name = "nodesAsk", get = "/nodes/ask")]
pub(crate) async fn nodes_ask(ctx: Context, input: Ask) -> Result<Asked, ActionError> {
    let limit = Duration::from_millis(input.timeoutMs.unwrap_or(1000));
    let all = ctx.cluster().call_all::<uptime>(NoInput::default(), limit).await?;
    let (mut answers, mut missing) = (BTreeMap::new(), all.missing);
    for (id, answer) in all.answers {
        match answer {
            Ok(uptime) => drop(answers.insert(id, uptime)),
            Err(_) => missing.push(id),
        }
    }
    Ok(Asked { answers, missing })
}

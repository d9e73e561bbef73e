//! Facts about server and requester that responses carry in development.

use std::fmt::Write;

use phalanx_core::registry::Registered;
use phalanx_core::{Node, Params};
use serde_json::Value;

use super::identity::Identity;

/// Facts about server and requester; empty unless `web.metadata`, or by default the environment, enables them.
pub(super) struct DebugInfo(Option<Box<DebugFacts>>);

struct DebugFacts {
    node: Node,
    identity: Identity,
    started: tokio::time::Instant,
    received: Value,
}

impl DebugInfo {
    /// Starts the clock of a request, if the facts are enabled.
    pub(super) fn start(node: &Node, identity: &Identity) -> Self {
        let is_enabled = node.config().web.metadata.unwrap_or_else(|| node.environment().is_development());
        let facts = || DebugFacts {
            node: node.clone(),
            identity: identity.clone(),
            started: tokio::time::Instant::now(),
            received: Value::Object([("action".to_owned(), Value::Null)].into_iter().collect()),
        };
        Self(is_enabled.then(|| Box::new(facts())))
    }

    /// Records the params of the call, secrets filtered.
    pub(super) fn record(&mut self, action: &Registered, params: &Params) {
        let Some(facts) = &mut self.0 else { return };
        let mut received = action.shown(params, facts.node.config());
        received.insert("action".into(), action.def.name.into());
        received.insert("apiVersion".into(), action.def.version.into());
        facts.received = Value::Object(received);
    }

    /// Returns the facts as the fields of a JSON object, without its braces.
    pub(super) fn into_fields(self) -> Option<String> {
        let facts = self.0?;
        let (node, identity) = (&facts.node, &facts.identity);
        let server = serde_json::json!({
            "serverName": node.app(),
            "apiVersion": node.version(),
            "requestDuration": facts.started.elapsed().as_millis() as u64,
            "currentTime": node.now_ms(),
        });
        let requester = serde_json::json!({
            "id": format!("{}-{}", identity.fingerprint, identity.request),
            "fingerprint": &*identity.fingerprint,
            "messageId": identity.request.to_string(),
            "remoteIP": identity.remote.ip().to_string(),
            "receivedParams": facts.received,
        });
        let mut text = String::with_capacity(512);
        let _ = write!(text, "\"serverInformation\":{server},\"requesterInformation\":{requester}");
        Some(text)
    }
}

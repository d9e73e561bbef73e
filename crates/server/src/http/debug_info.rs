//! What an answer says of server and requester, in development.

use std::fmt::Write;

use phalanx_core::registry::Registered;
use phalanx_core::{Node, Params};
use serde_json::Value;

use super::identity::Identity;

/// What a response says of server and requester, in development.
pub(super) struct Metadata(Option<Box<Noted>>);

struct Noted {
    node: Node,
    identity: Identity,
    started: tokio::time::Instant,
    received: Value,
}

impl Metadata {
    pub(super) fn wanted(node: &Node, identity: &Identity) -> Self {
        let wanted = node.config().web.metadata.unwrap_or_else(|| node.environment().is_development());
        let noted = || Noted {
            node: node.clone(),
            identity: identity.clone(),
            started: tokio::time::Instant::now(),
            received: Value::Object([("action".to_owned(), Value::Null)].into_iter().collect()),
        };
        Self(wanted.then(|| Box::new(noted())))
    }

    pub(super) fn note(&mut self, action: &Registered, params: &Params) {
        let Some(noted) = &mut self.0 else { return };
        let mut received = action.shown(params, noted.node.config());
        received.insert("action".into(), action.def.name.into());
        received.insert("apiVersion".into(), action.def.version.into());
        noted.received = Value::Object(received);
    }

    pub(super) fn text(self) -> Option<String> {
        let noted = self.0?;
        let (node, identity) = (&noted.node, &noted.identity);
        let server = serde_json::json!({
            "serverName": node.app(),
            "apiVersion": node.version(),
            "requestDuration": noted.started.elapsed().as_millis() as u64,
            "currentTime": node.now_ms(),
        });
        let requester = serde_json::json!({
            "id": format!("{}-{}", identity.fingerprint, identity.request),
            "fingerprint": &*identity.fingerprint,
            "messageId": identity.request.to_string(),
            "remoteIP": identity.remote.ip().to_string(),
            "receivedParams": noted.received,
        });
        let mut text = String::with_capacity(512);
        let _ = write!(text, "\"serverInformation\":{server},\"requesterInformation\":{requester}");
        Some(text)
    }
}

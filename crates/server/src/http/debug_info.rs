//! Facts about server and requester that responses carry in development.

use phalanx_core::protocol::{RequesterInformation, ServerInformation, debug_fields};
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{Engine, Params};
use serde_json::{Map, Value};

use super::body::request::ShownParams;
use super::identity::Identity;

/// Whether responses carry the facts.
pub(super) fn is_enabled(engine: &Engine) -> bool {
    engine.config().web.metadata.unwrap_or_else(|| engine.node().environment().is_development())
}

fn with_name(mut received: Map<String, Value>, action: &RegisteredAction) -> Value {
    received.insert("action".into(), action.def.name.into());
    received.insert("apiVersion".into(), action.def.version.into());
    Value::Object(received)
}

/// Facts about server and requester; empty unless `web.metadata`, or by default the environment, enables them.
pub(super) struct DebugInfo(Option<Box<DebugFacts>>);

struct DebugFacts {
    engine: Engine,
    identity: Identity,
    started: tokio::time::Instant,
    received: Value,
}

impl DebugInfo {
    /// Starts the clock of a request, if the facts are enabled.
    pub(super) fn start(engine: &Engine, identity: &Identity) -> Self {
        let facts = || DebugFacts {
            engine: engine.clone(),
            identity: identity.clone(),
            started: tokio::time::Instant::now(),
            received: Value::Object([("action".to_owned(), Value::Null)].into_iter().collect()),
        };
        Self(is_enabled(engine).then(|| Box::new(facts())))
    }

    /// Records the params of a call's head, secrets filtered.
    pub(super) fn record(&mut self, action: &RegisteredAction, params: &Params) {
        let Some(facts) = &mut self.0 else { return };
        let received = action.shown(params, facts.engine.config());
        facts.received = with_name(received, action);
    }

    /// Records the params of a call whose body was read, secrets filtered.
    pub(super) fn record_body(&mut self, body: Option<ShownParams>) {
        if let (Some(facts), Some((action, received))) = (&mut self.0, body) {
            facts.received = with_name(received, &action);
        }
    }

    /// Returns the facts as the fields of a JSON object, without its braces.
    pub(super) fn into_fields(self) -> Option<String> {
        let facts = self.0?;
        let (engine, identity) = (&facts.engine, &facts.identity);
        let server = ServerInformation {
            server_name: engine.node().app(),
            api_version: engine.node().version(),
            request_duration: facts.started.elapsed().as_millis() as u64,
            current_time: engine.node().now_ms(),
        };
        let requester = RequesterInformation {
            id: &format!("{}-{}", identity.fingerprint, identity.request),
            fingerprint: &identity.fingerprint,
            message_id: &identity.request.to_string(),
            remote_ip: &identity.remote().ip().to_string(),
            received_params: &facts.received,
        };
        Some(debug_fields(&server, &requester))
    }
}

//! The upgrade of an HTTP request to a connection: origin, rate limit, the application's connect hooks, then the 101.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use phalanx_core::address_rate::{AddressBuckets, Rate};
use phalanx_core::connection::{Connection, NewConnection, OutboxLimit};
use phalanx_core::dispatch;
use phalanx_core::hooks::ConnectRequest;
use phalanx_core::protocol::CloseReason;
use phalanx_core::{ActionError, Caller, Engine, ErrorKind, Params, Registration, bound_reached};
use tracing::error;

use super::connection::ConnectionTask;
use super::frame;
use super::handshake::OpeningHandshake;
use crate::http::cross_site::{CrossSiteGate, CrossSiteReports, CrossSiteRule, RequestSite};
use crate::http::identity::Identity;
use crate::http::reply;
use crate::shares::{self, SharedBound};

/// The upgrades that a socket counts as whose client sent far beyond its rate: it cost the node as much, and would be back at
/// once.
const COST_OF_A_FLOOD: u32 = 50;

/// The state that all upgrades of a node share.
#[derive(Debug)]
pub(crate) struct UpgradeState {
    engine: Engine,
    buckets: AddressBuckets,
    cross_site: CrossSiteGate,
}

impl UpgradeState {
    pub(crate) fn new(engine: Engine, reports: Arc<CrossSiteReports>) -> Self {
        let settings = &engine.config().websocket;
        let rate = Rate { per_second: settings.upgrades_per_second, burst: settings.upgrade_burst };
        let rule = CrossSiteRule::of_sockets(&settings.allowed_origins, &engine.config().web);
        let cross_site = CrossSiteGate::of_sockets(rule, reports);
        Self { buckets: AddressBuckets::new(rate, engine.config().limits.clone()), cross_site, engine }
    }
}

/// Serves a request to the WebSocket endpoint.
pub(crate) async fn upgrade(State(state): State<Arc<UpgradeState>>, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return reply::options("GET, OPTIONS");
    }
    let (mut parts, _) = request.into_parts();
    let Some(opening) = OpeningHandshake::take(&mut parts) else {
        return upgrade_required();
    };
    let engine = &state.engine;
    let identity = Identity::of(&parts.extensions);
    let share = match shares::take(identity.share.as_ref(), SharedBound::Sockets) {
        Ok(share) => share,
        Err(error) => return reply::error(&error),
    };
    let shows_causes = identity.shows_causes;
    let registration = match admit(&state, &identity, &parts.uri, parts.headers).await {
        Ok(registration) => registration,
        Err(error) if shows_causes => return reply::error(&error.showing_cause()),
        Err(error) => return reply::error(&error),
    };
    let (engine, response) = (engine.clone(), opening.response());
    engine.clone().shutdown().spawn(Box::pin(async move {
        let Ok(upgraded) = opening.upgrade.await else { return };
        let connection = registration.connection().clone();
        let caller = dispatch::showing_causes(Caller::socket(connection.clone()), shows_causes);
        let Some(task) = ConnectionTask::new(engine, caller, upgraded) else {
            return error!("the upgraded connection was not accepted by the listener");
        };
        task.run(registration).await;
        if connection.closing() == Some(CloseReason::RateLimited) {
            state.buckets.charge(connection.remote().ip(), COST_OF_A_FLOOD);
        }
        drop(share);
    }));
    response
}

/// Checks a request and registers its connection.
async fn admit(
    state: &UpgradeState,
    identity: &Identity,
    uri: &http::Uri,
    headers: HeaderMap,
) -> Result<Registration, ActionError> {
    let engine = &state.engine;
    if engine.shutdown().is_draining() {
        return Err(elsewhere());
    }
    let site = RequestSite::of(uri, &headers, &identity.forwarded);
    state.cross_site.check(&site)?;
    let counts_session = engine.has_sessions() && state.cross_site.counts_session(&site);
    if !state.buckets.try_take(identity.remote().ip()) {
        bound_reached("websocket.upgrades_per_second");
        return Err(ActionError::of(ErrorKind::RateLimited, "too many upgrades from this address"));
    }
    let mut query = Params::default();
    query.push_query(uri.query().unwrap_or_default())?;
    let remote = identity.remote();
    let caller = Caller::upgrade(identity.fingerprint.clone(), remote, headers);
    let caller = if counts_session { caller } else { dispatch::without_session_cookie(caller) };
    let caller = Arc::new(dispatch::showing_causes(caller, identity.shows_causes));
    // Before the hooks, which decide by it: one that ends while they run is then missed by `confirm_session`.
    let session = engine.session_of_upgrade(&caller.headers, counts_session).await?;
    let (uri, id) = (uri.clone(), identity.request.clone());
    let decision = engine.run_connect_hooks(ConnectRequest { uri, query, caller, remote, id }).await?;
    let id = match decision.id {
        Some(id) if id.is_reserved() => {
            let message = "the id that the application gives is the server's or a node's own";
            return Err(ActionError::of(ErrorKind::InvalidInput, message));
        }
        Some(id) => id,
        None => engine.new_connection_id(),
    };
    let settings = &engine.config().websocket;
    let new = NewConnection {
        id,
        fingerprint: identity.fingerprint.clone(),
        remote,
        attributes: decision.attributes,
        connected_at: engine.node().now_ms(),
        outbox: OutboxLimit { frames: settings.outbox_frames, bytes: settings.outbox_bytes.as_u64() as usize },
    };
    let connection = Connection::of_session(new, session);
    // The first frame: the connection is not registered yet, so nothing else can be queued.
    connection.queue(frame::welcome(engine, &connection));
    let mut registration = engine.register(connection)?;
    registration.confirm_session().await?;
    if !decision.tags.is_empty() {
        registration.set_tags(&decision.tags).await?;
    }
    registration.notify_created().await;
    Ok(registration)
}

/// The error of an upgrade on a node that drains.
pub(crate) fn elsewhere() -> ActionError {
    let error = ActionError::of(ErrorKind::Unavailable, "the server is shutting down");
    error.with_retry_after(Duration::ZERO) // another node, or the next process, is there already
}

fn upgrade_required() -> Response {
    let error = ActionError::new(ErrorKind::Malformed, "upgrade_required", "this path speaks websocket");
    let mut response = reply::error(&error);
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
    headers.insert(http::header::UPGRADE, http::HeaderValue::from_static("websocket"));
    headers.insert(http::header::SEC_WEBSOCKET_VERSION, http::HeaderValue::from_static("13"));
    response
}

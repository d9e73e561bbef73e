//! From a path to its action: the router of a node, made once from the registry.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use http::Method;
use http::header::HeaderValue;
use phalanx_core::action;
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, Started};
use phalanx_core::initializer::BoxError;
use phalanx_core::registry::{Registered, path_of};
use phalanx_core::{ActionError, Caller, Node, Origin, Outcome, Params};
use serde_json::Value;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::body::BodyError;
use super::identity::Identity;
use super::params::{self, HasPathParams};
use super::{client, files, reply};
use crate::ws::{Upgrades, upgrade};

/// Makes a node's router: actions, the endpoint, the browser client, an application's own routes, files.
///
/// # Errors
///
/// Two routes that no request can tell apart.
pub(crate) fn router(node: &Node, own: Router) -> Result<Router, BoxError> {
    let settings = &node.config().web;
    let prefix = settings.prefix.trim_end_matches('/');
    let mut check = matchit::Router::new();
    let mut router = Router::new();
    for (path, actions) in by_path(node) {
        let full = format!("{prefix}{path}");
        check.insert(full.clone(), ()).map_err(|error| format!("the path {full}: {error}"))?;
        let handler = any(serve_action).with_state(Arc::new(PathRoutes::new(node, &full, actions)));
        if !full.ends_with(['/', '}']) {
            let slashed = format!("{full}/");
            check.insert(slashed.clone(), ()).map_err(|error| format!("the path {slashed}: {error}"))?;
            router = router.route(&slashed, handler.clone());
        }
        router = router.route(&full, handler);
    }
    let upgrades = Arc::new(Upgrades::new(node.clone()));
    router = router
        .route(&node.config().websocket.path, any(upgrade).with_state(upgrades))
        .route("/phalanx-client.js", get(client::module))
        .route("/phalanx-client.d.ts", get(client::types))
        .merge(own.layer(DefaultBodyLimit::max(settings.max_body.as_u64() as usize)))
        .fallback(any(serve_file).with_state(node.clone()));
    Ok(match cors(&settings.cors_origins)? {
        Some(cors) => router.layer(cors),
        None => router,
    })
}

/// The actions of one path, by method.
struct PathRoutes {
    node: Node,
    by_method: Vec<(action::Method, Arc<Registered>)>,
    has_path_params: HasPathParams,
    allowed: String,
}

impl PathRoutes {
    fn new(node: &Node, path: &str, by_method: Vec<(action::Method, Arc<Registered>)>) -> Self {
        let has_path_params = if path.contains('{') { HasPathParams::Yes } else { HasPathParams::No };
        let allowed = reply::allowed_methods(by_method.iter().map(|(method, _)| *method));
        Self { node: node.clone(), by_method, has_path_params, allowed }
    }

    fn find(&self, method: &Method) -> Option<&Arc<Registered>> {
        let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.by_method.iter().find(|(method, _)| method.as_str() == wanted).map(|(_, action)| action)
    }
}

fn by_path(node: &Node) -> BTreeMap<String, Vec<(action::Method, Arc<Registered>)>> {
    let mut paths: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for action in node.registry().actions() {
        for route in action.def.routes {
            paths.entry(path_of(action.def, route)).or_default().push((route.method, action.clone()));
        }
    }
    paths
}

async fn serve_action(State(routes): State<Arc<PathRoutes>>, request: Request) -> Response {
    let Some(routed) = routes.find(request.method()) else {
        return match *request.method() {
            Method::OPTIONS => reply::options(&routes.allowed),
            _ => reply::method_not_allowed(&routes.allowed),
        };
    };
    let node = &routes.node;
    let (mut parts, body) = request.into_parts();
    let identity = Identity::of(&parts.extensions);
    let mut metadata = Metadata::wanted(node, &identity);
    let outcome = match params::read(&mut parts, body, node.config(), routes.has_path_params).await {
        Ok(params) => match asked_version(node, routed, &params) {
            Ok(action) => {
                metadata.note(&action, &params);
                let headers = std::mem::take(&mut parts.headers);
                let (outcome, headers) = run(node, action, params, identity, headers).await;
                parts.headers = headers;
                outcome
            }
            Err(unknown) => Err(unknown),
        },
        Err(BodyError::Refused(refused)) => Err(refused),
        Err(BodyError::Late) => return reply::late(),
    };
    let asked = reply::Asked { node, method: &parts.method, headers: &parts.headers, metadata: metadata.text() };
    reply::respond(outcome, asked).await
}

/// The version a request asks for wins over the version whose route it took.
fn asked_version(node: &Node, routed: &Arc<Registered>, params: &Params) -> Result<Arc<Registered>, ActionError> {
    let Some(asked) = params.get_str("apiVersion") else { return Ok(routed.clone()) };
    let version = asked.parse().map_err(|_| dispatch::unknown_action())?;
    let action = node.registry().find(routed.def.name, Some(version));
    action.filter(|action| !action.def.routes.is_empty()).cloned().ok_or_else(dispatch::unknown_action)
}

/// Runs an action. It goes on if its client leaves, unless it says otherwise.
async fn run(
    node: &Node,
    action: Arc<Registered>,
    params: Params,
    identity: Identity,
    headers: http::HeaderMap,
) -> (Outcome, http::HeaderMap) {
    let caller = Arc::new(Caller {
        transport: Origin::Http,
        fingerprint: identity.fingerprint,
        remote: Some(identity.remote),
        headers,
        connection: None,
    });
    let request = dispatch::Request { action, params, caller: caller.clone(), id: identity.request };
    let outcome = match dispatch::start(node, request).await {
        Started::Done(outcome) => outcome,
        Started::Running(running) if running.on_disconnect() == OnDisconnect::Cancel => running.finish().await,
        Started::Running(running) => {
            let finished = node.shutdown().spawn(running.finish()).await;
            finished.unwrap_or_else(|error| Err(ActionError::internal(error)))
        }
    };
    let headers = Arc::try_unwrap(caller).map_or_else(|shared| shared.headers.clone(), |caller| caller.headers);
    (outcome, headers)
}

/// What a response says of server and requester, in development.
struct Metadata(Option<Noted>);

struct Noted {
    node: Node,
    identity: Identity,
    started: tokio::time::Instant,
    received: Value,
}

impl Metadata {
    fn wanted(node: &Node, identity: &Identity) -> Self {
        let wanted = node.config().web.metadata.unwrap_or_else(|| node.environment().is_development());
        Self(wanted.then(|| Noted {
            node: node.clone(),
            identity: identity.clone(),
            started: tokio::time::Instant::now(),
            received: Value::Object([("action".to_owned(), Value::Null)].into_iter().collect()),
        }))
    }

    fn note(&mut self, action: &Registered, params: &Params) {
        let Some(noted) = &mut self.0 else { return };
        let secrets = &noted.node.config().general.secret_params;
        let hidden = |name: &str| action.secrets.iter().chain(secrets).any(|secret| secret == name);
        let mut received = params.to_json(&hidden);
        if let Value::Object(fields) = &mut received {
            fields.retain(|name, _| action.fields.contains(name));
            fields.insert("action".into(), action.def.name.into());
            fields.insert("apiVersion".into(), action.def.version.into());
        }
        noted.received = received;
    }

    fn text(self) -> Option<String> {
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

/// Everything that is no action: a file under the public roots, or nothing.
async fn serve_file(State(node): State<Node>, request: Request) -> Response {
    const FILE_METHODS: &str = "GET, HEAD, OPTIONS";
    let settings = &node.config().web;
    let path = request.uri().path();
    let under_prefix =
        path.strip_prefix(settings.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under_prefix {
        return reply::error(&dispatch::unknown_action());
    }
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return reply::options(FILE_METHODS),
        _ => return reply::method_not_allowed(FILE_METHODS),
    }
    let path = path.strip_prefix("/public").filter(|rest| rest.starts_with('/') || rest.is_empty()).unwrap_or(path);
    match node.files().open(path).await {
        Ok(file) => files::respond(file, request.method(), request.headers(), settings.file_max_age).await,
        Err(error) => match *request.method() {
            Method::HEAD => reply::error(&error.into()).map(|_| Body::empty()),
            _ => reply::error(&error.into()),
        },
    }
}

/// Who else may call from a browser page: `*` means everybody, without cookies.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, BoxError> {
    if origins.is_empty() {
        return Ok(None);
    }
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let layer = CorsLayer::new()
        .allow_methods(methods)
        .allow_headers([http::header::CONTENT_TYPE, http::header::AUTHORIZATION]);
    if origins.iter().any(|origin| origin == "*") {
        return Ok(Some(layer.allow_origin(Any)));
    }
    let origins = origins.iter().map(|origin| HeaderValue::from_str(origin)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(layer.allow_origin(AllowOrigin::list(origins)).allow_credentials(true)))
}

//! One call from parameters to outcome: layers, exposure, function, deadline, metrics.

mod streaming;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http::Uri;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use streaming::MeteredStream;

use crate::action::{Method, OnDisconnect};
use crate::answer::{Body, BodySource, Content, Outcome};
use crate::call::body::CallBody;
use crate::call::gate::ActionGate;
use crate::call::head::StagedHead;
use crate::caller::Caller;
use crate::context::{CallHost, Context, NewCall};
use crate::engine::{Engine, EngineParts};
use crate::error::{ActionError, Chain, ErrorKind, panicked, unknown_action};
use crate::event::Event;
use crate::future::BoxFuture;
use crate::id::RequestId;
use crate::layer::{Call, Next, run_function};
use crate::metrics::CallEnd;
use crate::node::Node;
use crate::origin::Origin;
use crate::params::Params;
use crate::rate_limit::RateLimits;
use crate::registry::{RegisteredAction, path_of};
use crate::task::accepted::with_id;

/// A call, as a transport hands it over.
#[derive(Debug)]
pub struct CallRequest {
    /// The action.
    pub action: Arc<RegisteredAction>,
    /// The path and the query of an HTTP request.
    pub uri: Option<Uri>,
    /// The params of path and query; all of a call without a body.
    pub params: Params,
    /// Its body.
    pub body: CallBody,
    /// Its caller.
    pub caller: Arc<Caller>,
    /// Its name in logs.
    pub id: RequestId,
}

/// A call that has been polled once.
#[derive(Debug)]
pub enum Dispatched {
    /// It was over at once, as most calls are.
    Done(Outcome),
    /// It waits for something, and may be parked.
    Pending(PendingCall),
}

/// Starts a call, whose code runs from [`StartedCall::poll_once`] on.
///
/// It is not `async`, because the request would be copied into a future, and with it into that of its transport.
pub fn start(engine: &Engine, request: CallRequest) -> StartedCall {
    let started = Instant::now();
    let def = request.action.def;
    let origin = request.caller.transport;
    let shown = || serde_json::Value::Object(request.action.shown(&request.params, engine.config()));
    debug!(action = def.name, request = %request.id, params = %shown(), "an action starts");
    let context = Context::new(NewCall {
        host: engine.clone().into_parts(),
        name: def.name,
        version: def.version,
        caller: request.caller,
        id: request.id,
        uri: request.uri,
        head: request.params,
        started,
        limit: def.limit(engine.config()),
        attempt: None,
        gate: request.action.call_gate(),
    });
    let action = request.action;
    let future =
        with_gate(engine, action.gate.as_ref(), Call { action: def, context: context.clone(), body: request.body });
    let meter = CallMeter { engine: engine.clone(), action, context, origin, started, open: true };
    StartedCall { future, meter }
}

/// A request to an application's own route, whose handler is no action.
#[derive(Debug)]
pub struct RouteRequest {
    /// The path and the query.
    pub uri: Uri,
    /// The params of path and query.
    pub params: Params,
    /// Its caller.
    pub caller: Caller,
    /// Its name in logs.
    pub id: RequestId,
}

/// The context by which the handler of an application's own route has guards. It has no deadline.
pub fn route_context(engine: &Engine, request: RouteRequest) -> Context {
    let RouteRequest { uri, params, caller, id } = request;
    Context::new(NewCall {
        host: engine.clone().into_parts(),
        name: "route",
        version: 1,
        caller: Arc::new(caller),
        id,
        uri: Some(uri),
        head: params,
        started: Instant::now(),
        limit: None,
        attempt: None,
        gate: None,
    })
}

/// Sets whether a caller is shown the cause of an `internal` error: for transports, and only for a developer on the machine
/// of the node.
#[must_use]
pub fn showing_causes(mut caller: Caller, shows_causes: bool) -> Caller {
    caller.shows_causes = shows_causes;
    caller
}

/// Has the session of a caller's cookie not count: for transports, and for a page of a site that the settings do not name. A
/// token that the page sends by itself counts.
#[must_use]
pub fn without_session_cookie(mut caller: Caller) -> Caller {
    caller.counts_cookie = false;
    caller
}

/// Takes everything that was added to the head of the response to an own route; nothing can be added from here on.
pub fn take_head(context: &Context) -> Option<StagedHead> {
    context.take_head()
}

/// A call that was started and not polled yet.
pub struct StartedCall {
    future: BoxFuture<'static, Outcome>,
    meter: CallMeter,
}

impl StartedCall {
    /// Polls the call once in place; only one that is pending gets its deadline armed.
    ///
    /// It is ready when it is polled first. It is not `async`, which would keep the call twice in the future of a request.
    pub fn poll_once(self) -> impl Future<Output = Dispatched> {
        let mut started = Some(self);
        poll_fn(move |cx| {
            let Self { mut future, meter } = started.take().expect("it is ready when it is polled first");
            Poll::Ready(match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Dispatched::Pending(PendingCall { future, has_deadline: true, meter }),
                Ok(Poll::Ready(outcome)) => Dispatched::Done(meter.finish(outcome)),
                Err(panic) => Dispatched::Done(meter.finish(Err(panicked(&*panic)))),
            })
        })
    }
}

impl std::fmt::Debug for StartedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartedCall({:?})", self.meter.action.def)
    }
}

/// Calls an action as the application itself, as its command line and its tasks do: exposure does not apply.
///
/// # Errors
///
/// `not_found` if there is no such action; the action's own errors, as for any caller.
pub async fn call_internal(engine: &Engine, name: &str, version: Option<u32>, params: Params) -> Outcome {
    let action = engine.registry().find(name, version).ok_or_else(unknown_action)?.clone();
    let caller = Arc::new(Caller::internal());
    let (id, body) = (engine.next_request_id(), CallBody::absent());
    match start(engine, CallRequest { action, uri: None, params, body, caller, id }).poll_once().await {
        Dispatched::Done(outcome) => outcome,
        Dispatched::Pending(call) => call.finish().await,
    }
}

/// A call that was pending when it was polled first.
pub struct PendingCall {
    future: BoxFuture<'static, Outcome>,
    /// Whether it ends by a deadline of its own; else that of the call around it is sooner.
    has_deadline: bool,
    meter: CallMeter,
}

impl PendingCall {
    /// Its fate when its client leaves.
    pub fn on_disconnect(&self) -> OnDisconnect {
        self.meter.action.def.on_disconnect
    }

    /// Waits for its end, at most until its deadline. Dropping this future drops the call.
    ///
    /// # Errors
    ///
    /// The action's own; `timeout` at the deadline; `internal` if it panicked.
    pub async fn finish(self) -> Outcome {
        let Self { future, has_deadline, meter } = self;
        let context = meter.context.clone();
        // The call is dropped inside at its deadline, and its drop may panic too.
        let in_time = async move { if has_deadline { within(future, &context).await } else { future.await } };
        let caught = AssertUnwindSafe(in_time).catch_unwind().await;
        meter.finish(caught.unwrap_or_else(|panic| Err(panicked(&*panic))))
    }
}

/// Runs a call until its deadline, which moves while the body is awaited, and with the version that the body names.
async fn within(mut future: BoxFuture<'static, Outcome>, context: &Context) -> Outcome {
    let mut timer = pin!(sleep_until(context.deadline().unwrap_or_else(Instant::now)));
    poll_fn(|task| {
        if let Poll::Ready(outcome) = future.as_mut().poll(task) {
            return Poll::Ready(outcome);
        }
        // The body's arrival polls the call, and only that starts the clock again.
        let Some(deadline) = context.deadline().filter(|_| !context.clock().is_paused()) else { return Poll::Pending };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(task).map(|()| Err(late()))
    })
    .await
}

impl std::fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingCall({:?})", self.meter.action.def)
    }
}

impl CallHost for EngineParts {
    fn node(&self) -> &Node {
        self.author_handle()
    }

    fn rate_limits(&self) -> &RateLimits {
        self.limits()
    }

    fn path_with_id(&self, (name, version): (&str, Option<u32>), id: &str) -> Option<String> {
        let action = self.definitions().find(name, version)?.def;
        action
            .routes
            .iter()
            .filter(|route| route.method == Method::Get)
            .find_map(|route| with_id(&path_of(action, route), id))
    }

    fn next_request_id(&self) -> RequestId {
        self.next_request()
    }

    fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.listen_addrs()
    }

    fn call_nested<'a>(
        self: Arc<Self>,
        action: (&'a str, Option<u32>),
        around: &'a Context,
        params: Params,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(nested(Engine::from_parts(self), action, around, params))
    }
}

/// A call that another call makes. It ends by its own deadline or that of the call around it, which drops both.
async fn nested(engine: Engine, (name, version): (&str, Option<u32>), around: &Context, params: Params) -> Outcome {
    let Some(action) = engine.registry().find(name, version).cloned() else {
        let version = version.map(|version| format!(" v{version}")).unwrap_or_default();
        return Err(ActionError::internal(format!("the application has no action {name}{version}")));
    };
    let started = Instant::now();
    let own = action.def.limit(engine.config()).map(|limit| started + limit);
    let sooner = own.filter(|own| around.deadline().is_none_or(|outer| *own < outer));
    let called = ((action.def.name, action.def.version), action.call_gate());
    let context = around.nested(called, params, started, sooner.or(around.deadline()));
    let call = Call { action: action.def, context: context.clone(), body: CallBody::absent() };
    let future = with_gate(&engine, action.gate.as_ref(), call);
    let meter = CallMeter { engine, action, context, origin: Origin::Internal, started, open: true };
    PendingCall { future, has_deadline: sooner.is_some(), meter }.finish().await
}

/// The layers of the application and of the action's groups, then the function.
fn with_gate(engine: &Engine, gate: Option<&Arc<ActionGate>>, call: Call) -> BoxFuture<'static, Outcome> {
    match gate.filter(|gate| !gate.layers().is_empty()).cloned() {
        Some(gate) => Box::pin(async move { Next::new(gate.layers()).run(call).await }),
        None => with_layers(engine, call),
    }
}

/// The layers of the application, then the function.
pub(crate) fn with_layers(engine: &Engine, call: Call) -> BoxFuture<'static, Outcome> {
    if engine.registry().layers().is_empty() {
        return run_function(call);
    }
    let engine = engine.clone();
    Box::pin(async move { Next::new(engine.registry().layers()).run(call).await })
}

/// Adds the cookies of an HTTP call to its outcome.
fn add_head(context: &Context, outcome: &mut Outcome) {
    let cookies = outcome.as_mut().map(|answer| std::mem::take(&mut answer.cookies)).unwrap_or_default();
    if !cookies.is_empty()
        && let Err(refused) = context.set_cookies(cookies)
    {
        *outcome = Err(refused);
    }
    if let Some(head) = context.take_head() {
        head.add_to(match outcome {
            Ok(answer) => &mut answer.headers,
            Err(error) => error.headers_mut(),
        });
    }
}

fn late() -> ActionError {
    ActionError::of(ErrorKind::Timeout, "the action did not answer in time")
}

/// Counts a call and writes its line in the log, once, however it ends; one that is dropped counts as cancelled. A call
/// whose answer is a stream ends with the stream.
struct CallMeter {
    engine: Engine,
    action: Arc<RegisteredAction>,
    context: Context,
    origin: Origin,
    started: Instant,
    open: bool,
}

impl CallMeter {
    fn finish(self, mut outcome: Outcome) -> Outcome {
        let took = self.took();
        if self.origin == Origin::Http {
            add_head(&self.context, &mut outcome);
        }
        match &mut outcome {
            Ok(answer) => match &mut answer.content {
                Content::Body(Body { source: BodySource::Stream(stream), .. }) => {
                    let inner = std::mem::replace(stream, futures_util::stream::empty().boxed());
                    *stream = Box::pin(MeteredStream::new(inner, self, took));
                }
                Content::Json(_) | Content::Body(_) => self.end(CallEnd::Answered, took),
            },
            Err(error) => {
                self.log_cause(error);
                if error.kind() == ErrorKind::Internal && self.context.shows_causes() {
                    error.show_cause();
                }
                self.end(CallEnd::Refused(error.kind()), took);
            }
        }
        outcome
    }

    /// Records the end of the call.
    fn end(mut self, ending: CallEnd, took: Duration) {
        self.open = false;
        self.record(ending, took);
        if self.engine.config().web.access_log {
            let (def, transport, request) = (self.answering().def, self.origin.as_str(), self.context.id());
            info!(action = def.name, version = def.version, transport, outcome = ending.as_str(), ?took, %request);
        }
    }

    /// The version that answers: the body may name another than the called one.
    fn answering(&self) -> &RegisteredAction {
        let (called, version) = (&self.action, self.context.answering());
        let other = || self.engine.registry().find(called.def.name, Some(version));
        if version == called.def.version { called } else { other().unwrap_or(called) }
    }

    /// How long the call took, without the time for which its body was awaited.
    fn took(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.context.waited())
    }

    fn record(&self, outcome: CallEnd, took: Duration) {
        let action = self.answering();
        action.metrics.record(outcome, took, self.context.waited());
        let def = action.def;
        let (action, version, transport) = (def.name, def.version, self.origin);
        self.engine.registry().observers.notify(&Event::ActionEnded { action, version, transport, outcome, took });
    }

    /// Logs why a stream broke off; the client has got its status already.
    fn log_failed_stream(&self, error: &ActionError) {
        let (action, request, cause) = (self.action.def.name, self.context.id(), Chain(error));
        error!(action, %request, %cause, "the stream of an action failed");
    }

    /// Logs the cause, which clients do not get. A backend that does not answer is no fault of the application's.
    fn log_cause(&self, refused: &ActionError) {
        let (action, request, cause) = (self.action.def.name, self.context.id(), Chain(refused));
        if refused.kind() == ErrorKind::Internal {
            error!(action, %request, %cause, "an action failed");
        } else if refused.kind() == ErrorKind::Unavailable && std::error::Error::source(refused).is_some() {
            warn!(action, %request, %cause, "an action could not be answered");
        }
    }
}

impl CallMeter {
    fn note_cut(&self) {
        let (action, origin, request) = (self.action.def.name, self.origin.as_str(), self.context.id());
        self.engine.shutdown().note_cut(|| format!("action {action} ({origin}, request {request})"));
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        if self.open {
            self.note_cut();
            self.record(CallEnd::Cancelled, self.took());
        }
    }
}

#[cfg(test)]
mod tests;

//! One call from parameters to outcome: layers, exposure, function, deadline, metrics.

mod streaming;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use streaming::MeteredStream;

use crate::action::{ActionDef, OnDisconnect};
use crate::answer::{Body, BodySource, Content, Outcome};
use crate::context::{CallHost, Caller, Context};
use crate::engine::{Engine, EngineParts};
use crate::error::{ActionError, Chain, ErrorKind, panicked, unknown_action};
use crate::event::Event;
use crate::future::{BoxFuture, Deadline};
use crate::id::RequestId;
use crate::layer::{Call, Next, run_function};
use crate::metrics::CallEnd;
use crate::node::Node;
use crate::origin::Origin;
use crate::params::Params;
use crate::registry::RegisteredAction;

/// A call, as a transport hands it over.
#[derive(Debug)]
pub struct CallRequest {
    /// The action.
    pub action: Arc<RegisteredAction>,
    /// Its parameters.
    pub params: Params,
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

/// Starts a call: polls it once in place, and only if it is pending arms its deadline.
pub async fn start(engine: &Engine, request: CallRequest) -> Dispatched {
    let started = Instant::now();
    let def = request.action.def;
    let deadline = deadline(def, engine, started);
    let origin = request.caller.transport;
    let shown = || serde_json::Value::Object(request.action.shown(&request.params, engine.config()));
    debug!(action = def.name, request = %request.id, params = %shown(), "an action starts");
    let host = engine.clone().into_parts();
    let context = Context::new(host, (def.name, def.version), request.caller, request.id.clone(), deadline);
    let meter =
        CallMeter { engine: engine.clone(), action: request.action, id: request.id, origin, started, open: true };
    let mut future = with_layers(engine, Call { action: def, params: request.params, context });
    let first = poll_fn(|cx| Poll::Ready(catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))));
    match first.await {
        Ok(Poll::Pending) => Dispatched::Pending(PendingCall { future, deadline, meter }),
        Ok(Poll::Ready(outcome)) => Dispatched::Done(meter.finish(outcome)),
        Err(panic) => Dispatched::Done(meter.finish(Err(panicked(&*panic)))),
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
    match start(engine, CallRequest { action, params, caller, id: engine.next_request_id() }).await {
        Dispatched::Done(outcome) => outcome,
        Dispatched::Pending(call) => call.finish().await,
    }
}

fn deadline(def: &ActionDef, engine: &Engine, started: Instant) -> Option<Instant> {
    let limit = match def.deadline {
        Deadline::Default => engine.config().general.action_deadline,
        Deadline::After(limit) => limit,
        Deadline::Never => Duration::ZERO,
    };
    (!limit.is_zero()).then(|| started + limit)
}

/// A call that was pending when it was polled first.
pub struct PendingCall {
    future: BoxFuture<'static, Outcome>,
    deadline: Option<Instant>,
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
        let Self { future, deadline, meter } = self;
        // The call is dropped inside at its deadline, and its drop may panic too.
        let in_time = async move {
            match deadline {
                None => future.await,
                Some(deadline) => timeout_at(deadline, future).await.unwrap_or_else(|_| Err(late())),
            }
        };
        let caught = AssertUnwindSafe(in_time).catch_unwind().await;
        meter.finish(caught.unwrap_or_else(|panic| Err(panicked(&*panic))))
    }
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

    fn call_nested<'a>(
        self: Arc<Self>,
        action: (&'static str, u32),
        around: &'a Context,
        params: Params,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(nested(Engine::from_parts(self), action, around, params))
    }
}

/// A call that another call makes. It ends by its own deadline or that of the call around it, which drops both.
async fn nested(engine: Engine, (name, version): (&str, u32), around: &Context, params: Params) -> Outcome {
    let Some(action) = engine.registry().find(name, Some(version)).cloned() else {
        return Err(ActionError::internal(format!("the application has no action {name} v{version}")));
    };
    let started = Instant::now();
    let own = deadline(action.def, &engine, started);
    let sooner = own.filter(|own| around.deadline().is_none_or(|outer| *own < outer));
    let context = around.nested((action.def.name, action.def.version), sooner.or(around.deadline()));
    let future = with_layers(&engine, Call { action: action.def, params, context });
    let id = around.id().clone();
    let meter = CallMeter { engine, action, id, origin: Origin::Internal, started, open: true };
    PendingCall { future, deadline: sooner, meter }.finish().await
}

/// The layers, then the function.
fn with_layers(engine: &Engine, call: Call) -> BoxFuture<'static, Outcome> {
    if engine.registry().layers().is_empty() {
        return run_function(call);
    }
    let engine = engine.clone();
    Box::pin(async move { Next::new(engine.registry().layers()).run(call).await })
}

fn late() -> ActionError {
    ActionError::of(ErrorKind::Timeout, "the action did not answer in time")
}

/// Counts a call and writes its line in the log, once, however it ends; one that is dropped counts as cancelled. A call
/// whose answer is a stream ends with the stream.
struct CallMeter {
    engine: Engine,
    action: Arc<RegisteredAction>,
    id: RequestId,
    origin: Origin,
    started: Instant,
    open: bool,
}

impl CallMeter {
    fn finish(self, mut outcome: Outcome) -> Outcome {
        let took = self.started.elapsed();
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
            let (action, transport) = (self.action.def.name, self.origin.as_str());
            info!(action, version = self.action.def.version, transport, outcome = ending.as_str(), ?took, request = %self.id);
        }
    }

    fn record(&self, outcome: CallEnd, took: Duration) {
        self.action.metrics.record(outcome, took);
        let def = self.action.def;
        let (action, version, transport) = (def.name, def.version, self.origin);
        self.engine.registry().observers.notify(&Event::ActionEnded { action, version, transport, outcome, took });
    }

    /// Logs why a stream broke off; the client has got its status already.
    fn log_failed_stream(&self, error: &ActionError) {
        let (action, request, cause) = (self.action.def.name, &self.id, Chain(error));
        error!(action, %request, %cause, "the stream of an action failed");
    }

    /// Logs the cause, which clients do not get. A backend that does not answer is no fault of the application's.
    fn log_cause(&self, refused: &ActionError) {
        let (action, request, cause) = (self.action.def.name, &self.id, Chain(refused));
        if refused.kind() == ErrorKind::Internal {
            error!(action, %request, %cause, "an action failed");
        } else if refused.kind() == ErrorKind::Unavailable && std::error::Error::source(refused).is_some() {
            warn!(action, %request, %cause, "an action could not be answered");
        }
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        if self.open {
            self.record(CallEnd::Cancelled, self.started.elapsed());
        }
    }
}

#[cfg(test)]
mod tests;

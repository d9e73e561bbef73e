//! One call from parameters to outcome: find, wrap, check exposure, run with a deadline, count.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use crate::action::{ActionDef, BoxFuture, Deadline, Exposure, OnDisconnect};
use crate::answer::Outcome;
use crate::context::{Caller, Context, Origin, RequestId};
use crate::error::{ActionError, ErrorKind};
use crate::event::Event;
use crate::layer::{Call, Next};
use crate::metrics::Ending;
use crate::node::Node;
use crate::params::Params;
use crate::registry::Registered;

/// What a transport asks for.
#[derive(Debug)]
pub struct Request {
    /// The action that was found for it.
    pub action: Arc<Registered>,
    /// What came with it.
    pub params: Params,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// Its name in logs.
    pub id: RequestId,
}

/// A call that has been polled once.
#[derive(Debug)]
pub enum Started {
    /// It was over at once, as most calls are.
    Done(Outcome),
    /// It waits for something, and may be parked.
    Running(Running),
}

/// Begins a call: polls it once in place, and only if it is pending arms its deadline.
pub async fn start(node: &Node, request: Request) -> Started {
    let started = Instant::now();
    let def = request.action.def;
    let deadline = deadline(def, node, started);
    let origin = request.caller.transport;
    let shown = || serde_json::Value::Object(request.action.shown(&request.params, node.config()));
    debug!(action = def.name, request = %request.id, params = %shown(), "an action begins");
    let context = Context::new(node.clone(), def.name, request.caller, request.id.clone(), deadline);
    let meter = Meter { node: node.clone(), action: request.action, id: request.id, origin, started, open: true };
    let mut future = surrounded(Call { action: def, params: request.params, context });
    let first = poll_fn(|cx| Poll::Ready(catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))));
    match first.await {
        Ok(Poll::Pending) => Started::Running(Running { future, deadline, meter }),
        Ok(Poll::Ready(outcome)) => Started::Done(meter.finish(outcome)),
        Err(panic) => Started::Done(meter.finish(Err(panicked(&*panic)))),
    }
}

fn deadline(def: &ActionDef, node: &Node, started: Instant) -> Option<Instant> {
    let limit = match def.deadline {
        Deadline::Default => node.config().general.action_deadline,
        Deadline::After(limit) => limit,
        Deadline::Never => Duration::ZERO,
    };
    (!limit.is_zero()).then(|| started + limit)
}

/// A call that was pending when it was polled first.
pub struct Running {
    future: BoxFuture<'static, Outcome>,
    deadline: Option<Instant>,
    meter: Meter,
}

impl Running {
    /// What its definition says of a client that leaves.
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
        // The call is dropped in here at its deadline, and what it holds may panic then too.
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

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({:?})", self.meter.action.def)
    }
}

/// A call that another call makes. It ends by its own deadline or that of the call around it, which drops both.
pub(crate) async fn nested(action: &ActionDef, around: &Context, params: Params) -> Outcome {
    let node = around.node();
    let Some(action) = node.registry().find(action.name, Some(action.version)).cloned() else {
        return Err(ActionError::internal(format!("the application has no action {action:?}")));
    };
    let started = Instant::now();
    let own = deadline(action.def, node, started);
    let sooner = own.filter(|own| around.deadline().is_none_or(|outer| *own < outer));
    let context = around.nested(action.def.name, sooner.or(around.deadline()));
    let future = surrounded(Call { action: action.def, params, context });
    let (node, id) = (node.clone(), around.request_id().clone());
    let meter = Meter { node, action, id, origin: Origin::Internal, started, open: true };
    Running { future, deadline: sooner, meter }.finish().await
}

/// Every layer, then the function.
fn surrounded(call: Call) -> BoxFuture<'static, Outcome> {
    if call.context.node().registry().layers().is_empty() {
        return innermost(call);
    }
    Box::pin(async move {
        let node = call.context.node().clone();
        Next::new(node.registry().layers()).run(call).await
    })
}

/// Checks that the caller may reach the action, then runs its function.
pub(crate) fn innermost(call: Call) -> BoxFuture<'static, Outcome> {
    match refusal(&call) {
        Some(error) => Box::pin(async move { Err(error) }),
        None => (call.action.run)(call.context, call.params),
    }
}

fn refusal(call: &Call) -> Option<ActionError> {
    let origin = call.context.caller().transport;
    if call.context.is_nested() || origin == Origin::Internal {
        return None;
    }
    match call.action.exposure {
        Exposure::Public => None,
        Exposure::HttpOnly if origin == Origin::Http => None,
        Exposure::HttpOnly => {
            Some(ActionError::forbidden("this action does not support the websocket connection type"))
        }
        Exposure::Internal => Some(unknown_action()),
    }
}

/// What a caller is told of a name, a version or a route that leads nowhere.
pub fn unknown_action() -> ActionError {
    ActionError::not_found("unknown action or invalid apiVersion")
}

fn late() -> ActionError {
    ActionError::of(ErrorKind::Timeout, "the action did not answer in time")
}

/// What a caller is told of a panic: nothing but that there was a failure; the log has its message.
pub fn panicked(panic: &(dyn Any + Send)) -> ActionError {
    ActionError::internal(Panicked::with(panic))
}

/// A panic of the application's code, as an error.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn with(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("no message").chars().take(500).collect())
    }
}

/// Counts a call and writes its line in the log, once, however it ends; one that is dropped counts as cancelled.
struct Meter {
    node: Node,
    action: Arc<Registered>,
    id: RequestId,
    origin: Origin,
    started: Instant,
    open: bool,
}

impl Meter {
    fn finish(mut self, outcome: Outcome) -> Outcome {
        self.open = false;
        let took = self.started.elapsed();
        let ending = outcome.as_ref().err().map_or(Ending::Answered, |error| Ending::Refused(error.kind()));
        self.tell(ending, took);
        if let Err(error) = &outcome {
            self.log_cause(error);
        }
        if self.node.config().web.access_log {
            let (action, transport) = (self.action.def.name, self.origin.as_str());
            info!(action, version = self.action.def.version, transport, outcome = ending.as_str(), ?took, request = %self.id);
        }
        outcome
    }

    fn tell(&self, outcome: Ending, took: Duration) {
        self.action.metrics.record(outcome, took);
        let def = self.action.def;
        let (action, version, transport) = (def.name, def.version, self.origin);
        self.node.tell(&Event::ActionEnded { action, version, transport, outcome, took });
    }

    /// What clients are not told. That a backend does not answer is no fault of the application's.
    fn log_cause(&self, refused: &ActionError) {
        let (action, request, cause) = (self.action.def.name, &self.id, Chain(refused));
        if refused.kind() == ErrorKind::Internal {
            error!(action, %request, %cause, "an action failed");
        } else if refused.kind() == ErrorKind::Unavailable && std::error::Error::source(refused).is_some() {
            warn!(action, %request, %cause, "an action could not be answered");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.open {
            self.tell(Ending::Cancelled, self.started.elapsed());
        }
    }
}

/// An error with the causes behind it, for the log.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The words of an author's error are the author's code, and the log must not die of them.
        catch_unwind(AssertUnwindSafe(|| self.write(f))).unwrap_or_else(|_| f.write_str("(its message panicked)"))
    }
}

impl Chain<'_> {
    fn write(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        for _ in 0..16 {
            let Some(error) = cause else { break };
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

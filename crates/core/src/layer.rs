//! Layers: code around every call, on every transport.

use std::sync::Arc;

use async_trait::async_trait;

use crate::action::{ActionDef, Exposure};
use crate::answer::Outcome;
use crate::call::body::{CallBody, LateCount};
use crate::context::{CallGate, CallHead, Context};
use crate::error::{ActionError, unknown_action};
use crate::future::BoxFuture;
use crate::origin::Origin;
use crate::params::Params;

/// One call on its way to its function.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// The action.
    pub action: &'static ActionDef,
    /// Its caller, and its node.
    pub context: Context,
    pub(crate) body: CallBody,
}

impl Call {
    /// The part of the call that is there before its body: path, query, headers, caller.
    pub fn head(&self) -> CallHead<'_> {
        self.context.head()
    }

    /// Reads the body, and returns the params of the whole call, not yet decoded. It is read once and kept for the
    /// function; over a socket it is there.
    ///
    /// A layer that awaits the body before it continues the call gives up what guards are for: they run after it, when
    /// the bytes have been taken.
    ///
    /// Cancel safe: what was read so far is kept.
    ///
    /// # Errors
    ///
    /// `payload_too_large`, `malformed`, and everything else for which a body is refused.
    pub async fn body(&mut self) -> Result<&Params, ActionError> {
        self.body.peek(&self.context).await
    }
}

/// Code around every call: time, trace, limit, count. A value of its first half is a local variable of the second.
///
/// Layers run in the order in which they were added, the first outermost. A call that is cancelled drops them.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use std::time::Instant;
/// use phalanx_core::Outcome;
/// use phalanx_core::layer::{Call, Layer, Next};
///
/// #[derive(Default)]
/// struct Timed {
///     slow: AtomicU64,
/// }
///
/// #[async_trait::async_trait]
/// impl Layer for Timed {
///     async fn call(&self, call: Call, next: Next<'_>) -> Outcome {
///         let start = Instant::now();
///         let outcome = next.run(call).await;
///         if start.elapsed().as_secs() >= 1 {
///             self.slow.fetch_add(1, Relaxed);
///         }
///         outcome
///     }
/// }
///
/// # use phalanx_core::action::{ActionDef, BodyRules, Exposure, OnDisconnect};
/// # use phalanx_core::answer::{Answer, answering};
/// # use phalanx_core::config::Config;
/// # use phalanx_core::dispatch::call_internal;
/// # use phalanx_core::params::{Params, input_schema};
/// # use phalanx_core::registry::Definitions;
/// # use phalanx_core::{Deadline, Engine, NoInput, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let def = ActionDef {
/// #     name: "example",
/// #     version: 1,
/// #     description: "",
/// #     routes: &[],
/// #     exposure: Exposure::Public,
/// #     cross_site: false,
/// #     deadline: Deadline::Default,
/// #     on_disconnect: OnDisconnect::Finish,
/// #     finish_stream: false,
/// #     limits: Vec::new,
/// #     body: BodyRules::DEFAULT,
/// #     input: input_schema::<NoInput>,
/// #     output: input_schema::<NoInput>,
/// #     require: |_| {},
/// #     run: |_, _| answering(async { Answer::json(&7) }),
/// # };
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// # setup.definitions.actions.push(def);
/// # setup.definitions.layers.push(Arc::new(Timed::default()));
/// # let engine = Engine::start(setup).await?;
/// # let answer = call_internal(&engine, "example", None, Params::default()).await;
/// # assert_eq!(answer?.decode::<u64>()?, 7);
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// Runs the call by `next.run(call)`, or answers instead of it.
    async fn call(&self, call: Call, next: Next<'_>) -> Outcome;
}

/// The rest of the call: the layers further in, then the function.
#[expect(missing_debug_implementations, reason = "layers are an application's own and need not be printable")]
pub struct Next<'a> {
    layers: &'a [Arc<dyn Layer>],
}

impl<'a> Next<'a> {
    pub(crate) fn new(layers: &'a [Arc<dyn Layer>]) -> Self {
        Self { layers }
    }

    /// Continues the call.
    ///
    /// # Errors
    ///
    /// The error of the step that stopped it: a layer, exposure, a guard, its input, the function itself.
    pub async fn run(self, call: Call) -> Outcome {
        match self.layers.split_first() {
            Some((layer, layers)) => layer.call(call, Next { layers }).await,
            None => run_function(call).await,
        }
    }
}

/// Checks that the caller may reach the action, lets the call pass the gate of the action's groups, then runs the function.
pub(crate) fn run_function(call: Call) -> BoxFuture<'static, Outcome> {
    if let Some(error) = refusal(&call) {
        return Box::pin(async move { Err(error) });
    }
    match call.context.gate().cloned() {
        None => (call.action.run)(call.context, call.body),
        Some(gate) => Box::pin(async move {
            gate.pass(&call.context).await?;
            if gate.has_late_limits(&call.context) {
                return run_counted(&*gate, call).await;
            }
            (call.action.run)(call.context, call.body).await
        }),
    }
}

/// Runs the function of an action with limits that count when its body is read. Where it reads none, they count before it
/// runs, or, if it keeps the body until it has answered, then: an error may be that of a guard, which keeps a call from
/// counting.
async fn run_counted(gate: &dyn CallGate, call: Call) -> Outcome {
    let (late, ctx) = (LateCount::default(), &call.context);
    let running = (call.action.run)(ctx.clone(), call.body.counted_by(late.clone()));
    if late.has_no_body() && late.is_due() {
        gate.pass_to_body(ctx).await?;
    }
    let answer = running.await?;
    if late.is_due() {
        gate.pass_to_body(ctx).await?;
    }
    Ok(answer)
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

//! What surrounds every call, on every transport: time, trace, limit, count.

use std::sync::Arc;

use async_trait::async_trait;

use crate::action::ActionDef;
use crate::answer::Outcome;
use crate::context::Context;
use crate::dispatch;
use crate::params::Params;

/// One call on its way to its function.
#[derive(Debug)]
pub struct Call {
    /// The action that was found.
    pub action: &'static ActionDef,
    /// What came with the call, not yet decoded.
    pub params: Params,
    /// Who called, and where.
    pub context: Context,
}

/// Something that surrounds every call. What its first half learnt is a local variable of the second.
///
/// Layers run in the order in which they were added, the first outermost. A call that is cancelled drops them.
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// Runs the call by `next.run(call)`, or answers in its place.
    async fn call(&self, call: Call, next: Next<'_>) -> Outcome;
}

/// The rest of the way: the layers further in, then the function.
#[expect(missing_debug_implementations, reason = "layers are an application's own and need not be printable")]
pub struct Next<'a> {
    layers: &'a [Arc<dyn Layer>],
}

impl<'a> Next<'a> {
    pub(crate) fn new(layers: &'a [Arc<dyn Layer>]) -> Self {
        Self { layers }
    }

    /// Goes on with the call.
    ///
    /// # Errors
    ///
    /// Whatever stopped it: a layer, exposure, a guard, its input, the function itself.
    pub async fn run(self, call: Call) -> Outcome {
        match self.layers.split_first() {
            Some((layer, layers)) => layer.call(call, Next { layers }).await,
            None => dispatch::innermost(call).await,
        }
    }
}

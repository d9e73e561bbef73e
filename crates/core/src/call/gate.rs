//! The gate of an action that has limits, or is in a group: the layers around it, and what a call passes beside the guards of
//! the action itself.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::LimitedCall;
use crate::context::{CallGate, Context};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::future::BoxFuture;
use crate::group::GroupScope;
use crate::layer::Layer;
use crate::limit::{KnownCaller, Limit};
use crate::origin::Origin;
use crate::rate_limit::LimitVerdict;

/// The parts of an action's groups, and its limits, as its calls need them. An action without either has none, and its calls pay
/// nothing.
pub(crate) struct ActionGate {
    /// The outermost first.
    groups: Box<[Arc<GroupScope>]>,
    /// The layers around the action, if a group adds any: those of the application, then those of the groups.
    layers: Box<[Arc<dyn Layer>]>,
    /// The limits that count before the guards, and those that count after them.
    limits: [Box<[GateLimit]>; 2],
}

/// A limit, with its place among those of the application.
#[derive(Clone, Debug)]
pub(crate) struct GateLimit {
    pub(crate) index: usize,
    pub(crate) limit: Arc<Limit>,
}

impl ActionGate {
    /// The gate of an action within these groups and with these limits, theirs included; `None` if there is nothing to pass.
    pub(crate) fn new(
        groups: &[Arc<GroupScope>],
        limits: Vec<GateLimit>,
        of_application: &[Arc<dyn Layer>],
    ) -> Option<Arc<Self>> {
        let has_parts = |group: &Arc<GroupScope>| !group.guards.is_empty() || !group.layers.is_empty();
        let is_needed = !limits.is_empty() || groups.iter().any(has_parts);
        is_needed.then(|| Arc::new(Self::of(groups.to_vec(), limits, of_application)))
    }

    fn of(groups: Vec<Arc<GroupScope>>, limits: Vec<GateLimit>, of_application: &[Arc<dyn Layer>]) -> Self {
        let own: Vec<_> = groups.iter().flat_map(|group| &group.layers).map(|layer| layer.layer.clone()).collect();
        let outer = if own.is_empty() { &[] } else { of_application };
        let (late, early): (Vec<_>, Vec<_>) = limits.into_iter().partition(|limit| limit.limit.is_after_guards());
        let limits = [early.into(), late.into()];
        Self { groups: groups.into(), layers: outer.iter().cloned().chain(own).collect(), limits }
    }

    /// All layers around the action; empty if its groups add none to those of the application.
    pub(crate) fn layers(&self) -> &[Arc<dyn Layer>] {
        &self.layers
    }

    /// The limits of the action and its groups.
    pub(crate) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.limits.iter().flatten().map(|limit| &*limit.limit)
    }

    /// The rest of this gate for a call that has passed another one: the groups that it was not in, and the limits that did not
    /// count it. The layers of the application are around that call already.
    pub(crate) fn beyond(&self, passed: Option<&Arc<dyn CallGate>>) -> Self {
        let Some(passed) = passed.and_then(|passed| (&**passed as &dyn Any).downcast_ref::<Self>()) else {
            return Self::of(self.groups.to_vec(), self.limits.iter().flatten().cloned().collect(), &[]);
        };
        let is_new = |group: &&Arc<GroupScope>| !passed.groups.iter().any(|other| Arc::ptr_eq(other, group));
        let counts = |limit: &&GateLimit| !passed.limits.iter().flatten().any(|other| other.index == limit.index);
        let groups = self.groups.iter().filter(is_new).cloned().collect();
        Self::of(groups, self.limits.iter().flatten().filter(counts).cloned().collect(), &[])
    }
}

impl CallGate for ActionGate {
    fn pass<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<(), ActionError>> {
        Box::pin(async {
            let [early, _] = &self.limits;
            if !early.is_empty() {
                count(early, ctx, &KnownCaller::default()).await?;
            }
            for guard in self.groups.iter().flat_map(|group| &group.guards) {
                (guard.check)(ctx).await?;
            }
            Ok(())
        })
    }

    fn has_late_limits(&self, ctx: &Context) -> bool {
        let [_, late] = &self.limits;
        !late.is_empty() && is_counted(ctx)
    }

    fn pass_to_body<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<(), ActionError>> {
        let [_, late] = &self.limits;
        Box::pin(async { count(late, ctx, &KnownCaller::of(ctx).await?).await })
    }
}

/// Whether a call counts: those of other actions, of tasks and of the command line do not.
fn is_counted(ctx: &Context) -> bool {
    !ctx.is_nested() && ctx.caller().transport != Origin::Internal
}

/// Counts a call for all of these limits, and notes their state for the head of the answer.
///
/// # Errors
///
/// `rate_limited` if one of them has no room; none has counted the call then.
async fn count(limits: &[GateLimit], ctx: &Context, caller: &KnownCaller) -> Result<(), ActionError> {
    if !is_counted(ctx) {
        return Ok(());
    }
    let rates = ctx.rate_limits();
    let call_of = |limit: &GateLimit| rates.call_of(limit.index, || limit.limit.subject(ctx, caller));
    let calls: Vec<LimitedCall> = limits.iter().filter_map(call_of).collect();
    if calls.is_empty() {
        return Ok(());
    }
    let verdict = rates.count(&calls, ctx.deadline()).await;
    if ctx.caller().transport == Origin::Http {
        // Refused once the answer has begun.
        let _ = ctx.stage(|head| {
            for (index, call) in calls.iter().enumerate() {
                head.add_limit(&call.limit, rates.policy_of(call), verdict.state(index));
            }
        });
    }
    if verdict.is_counted { Ok(()) } else { Err(refusal(&calls, &verdict)) }
}

/// The error of a call that limits refuse, with a detail for each of these.
fn refusal(calls: &[LimitedCall], verdict: &LimitVerdict) -> ActionError {
    let mut longest = Duration::ZERO;
    let mut details = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let Some(state) = verdict.state(index).filter(|state| !state.retry_after.is_zero()) else { continue };
        longest = longest.max(state.retry_after);
        let message = format!("the limit {} allows {}", call.limit, call.rate);
        details.push(Detail::new("", "limit", message).with_retry_after(state.retry_after));
    }
    ActionError::of(ErrorKind::RateLimited, "too many calls").with_details(details).with_retry_after(longest)
}

impl fmt::Debug for ActionGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionGate").field("groups", &self.groups).field("limits", &self.limits).finish_non_exhaustive()
    }
}

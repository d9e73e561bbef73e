//! Groups of actions: a prefix of their routes, and the guards, limits and layers that hold for all of them.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use crate::action::ActionDef;
use crate::context::Context;
use crate::error::ActionError;
use crate::future::BoxFuture;
use crate::guard::{FromContext, Requirements};
use crate::layer::Layer;
use crate::limit::Limit;

/// Begins a group of actions, whose routes begin with `prefix`; `""` changes no route.
///
/// ```
/// use phalanx_core::{ActionError, Context, FromContext, group};
///
/// /// A caller with the key of the administrators.
/// struct Admin;
///
/// impl FromContext for Admin {
///     async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
///         let key = ctx.caller().headers.get("x-admin").map(|key| key.as_bytes());
///         if key == Some(b"sesame") { Ok(Self) } else { Err(ActionError::forbidden("administrators only")) }
///     }
/// }
///
/// # use phalanx_core::action::{ActionDef, BodyRules, Exposure, OnDisconnect};
/// # use phalanx_core::answer::{Answer, answering};
/// # use phalanx_core::config::Config;
/// # use phalanx_core::dispatch::call_internal;
/// # use phalanx_core::params::{Params, input_schema};
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
/// // For an application: `App::actions(group("/admin").guard::<Admin>().actions(actions![..]))`.
/// setup.definitions.actions.extend(group("/admin").guard::<Admin>().actions([def]));
/// # let engine = Engine::start(setup).await?;
/// # let answer = call_internal(&engine, "example", None, Params::default()).await;
/// # assert_eq!(answer.unwrap_err().code(), "forbidden");
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
pub fn group(prefix: impl Into<String>) -> ActionGroup {
    let scope = GroupScope { prefix: prefix.into(), guards: Vec::new(), limits: Vec::new(), layers: Vec::new() };
    ActionGroup { scope, actions: ActionSet::default() }
}

/// Actions with a common prefix of their routes, and with guards and layers that hold for all of them: for clients, for
/// [`Context::call`], for tasks and for the command line.
///
/// A group may contain other groups. Of one call, the layers come first, those of the application, of the outer group, of the
/// inner one; then the guards in the same order; then the guards of the action. Names and versions do not change with the
/// group. An action is in one group, and the input of each has a field for each `{param}` of the prefix.
#[must_use = "a group does nothing until it is given to `App::actions`"]
pub struct ActionGroup {
    scope: GroupScope,
    actions: ActionSet,
}

impl ActionGroup {
    /// Adds a guard: the actions run only if it is established. The fact itself is dropped; an action that needs it takes it
    /// as a parameter as well.
    ///
    /// Two kinds of guards do not compile here. It runs before the body has come, so one with [`FromContext::AFTER_BODY`] does
    /// not, nor does `Option<G>`, by which all calls would pass.
    pub fn guard<G: FromContext + 'static>(mut self) -> Self {
        const {
            assert!(
                !G::AFTER_BODY,
                "the guard of a group runs before the body has come: this one needs to run after it"
            );
            assert!(
                !G::IS_OPTIONAL,
                "the guard of a group is no `Option`, which admits every call: take that as a parameter of the actions"
            );
        };
        self.scope.guards.push(GroupGuard { name: type_name::<G>(), require: G::require, check: check::<G> });
        self
    }

    /// Adds a limit, which all actions of the group share.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.scope.limits.push(limit);
        self
    }

    /// Adds a layer, inside of those of the application and of outer groups; the first one added is outermost.
    pub fn layer<L: Layer>(mut self, layer: L) -> Self {
        self.scope.layers.push(GroupLayer { name: type_name::<L>(), layer: Arc::new(layer) });
        self
    }

    /// Adds actions, or a group within this one: `.actions(actions![greet])`.
    pub fn actions(mut self, actions: impl Into<ActionSet>) -> Self {
        self.actions.extend(actions);
        self
    }
}

impl fmt::Debug for ActionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionGroup").field("scope", &self.scope).field("actions", &self.actions).finish()
    }
}

/// Actions, each with the groups that it is in.
#[derive(Debug, Default)]
pub struct ActionSet(pub(crate) Vec<GroupedAction>);

impl ActionSet {
    /// Adds an action that is in no group.
    pub fn push(&mut self, def: ActionDef) {
        self.0.push(GroupedAction { def, groups: Vec::new() });
    }

    /// Adds actions and groups of them.
    pub fn extend(&mut self, actions: impl Into<Self>) {
        self.0.append(&mut actions.into().0);
    }
}

impl<I: IntoIterator<Item = ActionDef>> From<I> for ActionSet {
    fn from(actions: I) -> Self {
        let mut set = Self::default();
        actions.into_iter().for_each(|def| set.push(def));
        set
    }
}

impl From<ActionGroup> for ActionSet {
    fn from(group: ActionGroup) -> Self {
        let scope = Arc::new(group.scope);
        let mut set = group.actions;
        for action in &mut set.0 {
            action.groups.insert(0, scope.clone());
        }
        set
    }
}

/// An action, and the groups around it.
#[derive(Debug)]
pub(crate) struct GroupedAction {
    pub(crate) def: ActionDef,
    /// The outermost first.
    pub(crate) groups: Vec<Arc<GroupScope>>,
}

/// All that a group says about its actions.
pub(crate) struct GroupScope {
    pub(crate) prefix: String,
    pub(crate) guards: Vec<GroupGuard>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) layers: Vec<GroupLayer>,
}

impl fmt::Debug for GroupScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guards: Vec<_> = self.guards.iter().map(|guard| guard.name).collect();
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.name).collect();
        let mut shown = f.debug_struct("GroupScope");
        shown
            .field("prefix", &self.prefix)
            .field("guards", &guards)
            .field("limits", &self.limits)
            .field("layers", &layers)
            .finish()
    }
}

/// The guard of a group.
pub(crate) struct GroupGuard {
    pub(crate) name: &'static str,
    pub(crate) require: fn(&mut Requirements),
    pub(crate) check: CheckGuard,
}

/// Establishes a guard, and drops the fact.
type CheckGuard = for<'a> fn(&'a Context) -> BoxFuture<'a, Result<(), ActionError>>;

fn check<G: FromContext>(ctx: &Context) -> BoxFuture<'_, Result<(), ActionError>> {
    Box::pin(async { G::from_context(ctx).await.map(drop) })
}

/// The layer of a group.
pub(crate) struct GroupLayer {
    pub(crate) name: &'static str,
    pub(crate) layer: Arc<dyn Layer>,
}

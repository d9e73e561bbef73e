//! The checks of groups, how an action gets the routes of its groups, and how a call gets to another version of its action.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{DefinitionErrors, RegisteredAction, check_session, check_states, fields_of, path_of, path_params};
use crate::action::{ActionDef, Route};
use crate::answer::Outcome;
use crate::call::body::{CallBody, OtherVersion};
use crate::context::{CallGate, Context};
use crate::future::BoxFuture;
use crate::group::{GroupScope, GroupedAction};
use crate::layer::{Call, Next};
use crate::session::data::SessionType;
use crate::states::States;

/// The groups of an action, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupView {
    /// The prefix of its routes.
    pub prefix: String,
    /// The types of the guards that come before its own.
    pub guards: Vec<&'static str>,
    /// The types of the layers around it, besides those of the application.
    pub layers: Vec<&'static str>,
}

impl GroupView {
    pub(super) fn new(groups: &[Arc<GroupScope>]) -> Self {
        let guards = groups.iter().flat_map(|group| &group.guards).map(|guard| short(guard.name));
        let layers = groups.iter().flat_map(|group| &group.layers).map(|layer| short(layer.name));
        Self { prefix: prefix_of(groups), guards: guards.collect(), layers: layers.collect() }
    }
}

/// The last part of a type's path, with its arguments: `admin::Admin` is `Admin`.
fn short(name: &'static str) -> &'static str {
    let path = &name[..name.find('<').unwrap_or(name.len())];
    path.rfind("::").map_or(name, |at| &name[at + 2..])
}

fn prefix_of(groups: &[Arc<GroupScope>]) -> String {
    groups.iter().map(|group| group.prefix.as_str()).collect()
}

/// Checks each group once: its prefix, and the states that its guards read.
pub(super) fn check(
    actions: &[GroupedAction],
    states: &States,
    session_type: Option<SessionType>,
    errors: &mut DefinitionErrors,
) {
    let mut checked = BTreeSet::new();
    for group in actions.iter().flat_map(|action| &action.groups) {
        if !checked.insert(Arc::as_ptr(group)) {
            continue;
        }
        if let Some(mistake) = mistake(&group.prefix) {
            errors.add(format!("the group {:?}: {mistake}", group.prefix));
        }
        for guard in &group.guards {
            let owner = format!("the group {:?}", group.prefix);
            check_states(&owner, guard.require, states, errors);
            check_session(&owner, guard.require, session_type, errors);
        }
    }
}

/// Why a prefix cannot begin a path.
fn mistake(prefix: &str) -> Option<&'static str> {
    let is_parameter = |segment: &str| {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        !name.is_empty() && !name.contains(['{', '}', '*'])
    };
    let segments = || prefix.split('/').skip(1);
    if prefix.is_empty() {
        None
    } else if !prefix.starts_with('/') {
        Some("a prefix starts with `/`, or is empty")
    } else if segments().any(str::is_empty) {
        Some("a prefix has no `/` at its end, and no two in a row")
    } else if segments().any(|segment| segment.contains(['{', '}']) && !is_parameter(segment)) {
        Some("a parameter of a prefix is a whole segment with a name, `{name}`")
    } else {
        None
    }
}

/// The definition of an action with the routes that it has in its groups. They live as long as the process, as the definition
/// does.
pub(super) fn placed(action: &GroupedAction, errors: &mut DefinitionErrors) -> ActionDef {
    let (def, prefix) = (action.def, prefix_of(&action.groups));
    if prefix.is_empty() {
        return def;
    }
    let input = (def.input)();
    let fields = fields_of(input.as_value());
    // Those of an action with routes are checked with each of them.
    for param in path_params(&prefix).filter(|param| def.routes.is_empty() && !fields.contains(param)) {
        errors.add(format!(
            "action {:?}: the prefix {prefix:?} of its group has {{{param}}}, and its input has no such field",
            def.name
        ));
    }
    let full = |route: &Route| Route { path: format!("{prefix}{}", path_of(&def, route)).leak(), ..*route };
    ActionDef { routes: def.routes.iter().map(full).collect::<Vec<_>>().leak(), ..def }
}

/// The error about an action that is there twice.
pub(super) fn doubled(def: &ActionDef, one: &[Arc<GroupScope>], other: &[Arc<GroupScope>]) -> String {
    let (name, version) = (def.name, def.version);
    if one.is_empty() && other.is_empty() {
        return format!("action {name:?} version {version} is defined twice");
    }
    let place = |groups: &[Arc<GroupScope>]| match groups {
        [] => "outside of groups".to_owned(),
        groups => format!("in the group {:?}", prefix_of(groups)),
    };
    let (one, other) = (place(one), place(other));
    format!("action {name:?} version {version} is there twice, {one} and {other}: an action is in one group at most")
}

impl OtherVersion for RegisteredAction {
    fn def(&self) -> &'static ActionDef {
        self.def
    }

    fn run(self: Arc<Self>, ctx: &Context, body: CallBody) -> BoxFuture<'static, Outcome> {
        let gate = self.gate.as_ref().map(|gate| Arc::new(gate.beyond(ctx.gate())));
        let context = ctx.of_version(self.def.version, gate.clone().map(|gate| gate as Arc<dyn CallGate>));
        let call = Call { action: self.def, context, body };
        Box::pin(async move { Next::new(gate.as_ref().map_or(&[], |gate| gate.layers())).run(call).await })
    }
}

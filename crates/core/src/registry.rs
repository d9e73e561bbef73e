//! An application's definitions: actions, layers, hooks, remote methods and state, all checked at boot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::action::{ActionDef, Exposure, Method, Route};
use crate::call::gate::ActionGate;
use crate::config::{Config, TaskSettings};
use crate::context::CallGate;
use crate::event::{Observer, Observers};
use crate::group::{ActionSet, GroupScope, GroupedAction};
use crate::guard::Requirements;
use crate::hooks::Hooks;
use crate::layer::Layer;
use crate::limit::Limit;
use crate::metrics::ActionMetrics;
use crate::node_report::{CONNECTIONS, REPORT};
use crate::operation::OPERATIONS;
use crate::params::Params;
use crate::remote_method::RemoteDef;
use crate::session::data::SessionType;
use crate::states::States;
use crate::task::TaskDef;
use crate::task::built_in::{CANCEL, RUN_ACTION};
use crate::task::handle::KnownTask;
use crate::task::quiet::QUIET;
use crate::task::unique::{UniqueKey, is_too_short};

mod groups;
mod limits;
mod queues;

pub use groups::GroupView;
use limits::LimitTable;

/// The definitions of an application, before they are checked.
#[derive(Default)]
pub struct Definitions {
    /// Its actions, in their groups.
    pub actions: ActionSet,
    /// Its tasks.
    pub tasks: Vec<TaskDef>,
    /// Its remote methods.
    pub remotes: Vec<RemoteDef>,
    /// Its layers, outermost first.
    pub layers: Vec<Arc<dyn Layer>>,
    /// The states that actions share.
    pub states: States,
    /// The types of its sessions: one at most.
    pub sessions: Vec<SessionType>,
    /// Its hooks.
    pub hooks: Hooks,
    /// Observers of events.
    pub observers: Vec<Arc<dyn Observer>>,
}

impl fmt::Debug for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definitions").field("actions", &self.actions).finish_non_exhaustive()
    }
}

/// An action, with the data that a node derives from its definition.
pub struct RegisteredAction {
    /// The definition.
    pub def: &'static ActionDef,
    /// The names of its input's fields.
    pub fields: Vec<String>,
    /// Whether its input has a field for a file.
    pub takes_files: bool,
    /// The names, at any depth of it, that never appear in a log.
    secrets: Vec<String>,
    /// The groups that it is in, the outermost first.
    groups: Vec<Arc<GroupScope>>,
    pub(crate) gate: Option<Arc<ActionGate>>,
    pub(crate) metrics: ActionMetrics,
}

impl fmt::Debug for RegisteredAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.def.fmt(f)
    }
}

/// A task, with the data that a node derives from its definition.
pub struct RegisteredTask {
    /// The definition.
    pub def: &'static TaskDef,
    /// The same as layers see it.
    pub(crate) action: &'static ActionDef,
}

impl RegisteredTask {
    fn new(def: TaskDef) -> Self {
        // As for actions.
        Self { def: Box::leak(Box::new(def)), action: Box::leak(Box::new(def.as_action())) }
    }

    /// How long an attempt may take without a heartbeat.
    pub(crate) fn limit(&self, config: &Config) -> Option<Duration> {
        self.def.deadline.limit(config.tasks.deadline).filter(|limit| !limit.is_zero())
    }

    pub(crate) fn known(&self, config: &Config) -> KnownTask {
        let TaskDef { queue, check, unique, tracked, fair_by, .. } = *self.def;
        KnownTask { queue, check, unique, fair_by, limit: self.limit(config), tracked }
    }
}

impl fmt::Debug for RegisteredTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.def.fmt(f)
    }
}

/// An application's definitions, checked.
pub struct Registry {
    actions: BTreeMap<&'static str, Vec<Arc<RegisteredAction>>>,
    tasks: BTreeMap<&'static str, Arc<RegisteredTask>>,
    remotes: HashMap<&'static str, &'static RemoteDef>,
    layers: Box<[Arc<dyn Layer>]>,
    limits: Box<[Arc<Limit>]>,
    pub(crate) states: Arc<States>,
    pub(crate) session_type: Option<SessionType>,
    pub(crate) hooks: Hooks,
    pub(crate) observers: Observers,
}

impl Registry {
    /// Checks everything that can be checked before the first call.
    ///
    /// # Errors
    ///
    /// All errors at once: doubled names, versions and routes, names, paths and prefixes that cannot be used, parameters of
    /// paths that the input lacks, outputs with reserved names, retries and limits of queues that cannot be, states and sessions that guards need
    /// and the application lacks.
    pub fn new(definitions: Definitions) -> Result<Self, DefinitionErrors> {
        let mut errors = DefinitionErrors::default();
        let mut actions: BTreeMap<&'static str, Vec<Arc<RegisteredAction>>> = BTreeMap::new();
        let (mut routes, mut limits) = (Routes::new(), LimitTable::default());
        let session_type = check_session_types(&definitions.sessions, &mut errors);
        groups::check(&definitions.actions.0, &definitions.states, session_type, &mut errors);
        for action in definitions.actions.0 {
            let def = groups::placed(&action, &mut errors);
            check_action(&def, &definitions.states, &mut routes, &mut errors);
            check_session(&format!("action {:?}", def.name), def.require, session_type, &mut errors);
            let versions = actions.entry(def.name).or_default();
            if let Some(other) = versions.iter().find(|other| other.def.version == def.version) {
                errors.add(groups::doubled(&def, &other.groups, &action.groups));
            }
            let gate = ActionGate::new(&action.groups, limits.of(&action, &mut errors), &definitions.layers);
            versions.push(Arc::new(RegisteredAction::new(GroupedAction { def, ..action }, gate)));
            versions.sort_by_key(|action| action.def.version);
        }
        let (mut tasks, mut remotes) = (BTreeMap::new(), HashMap::new());
        // A node without tasks has none of ours either.
        let built_in = !definitions.tasks.is_empty();
        for def in definitions.tasks.into_iter().chain(built_in.then_some(RUN_ACTION)) {
            check_task(&def, &definitions.states, &mut errors);
            check_session(&format!("task {:?}", def.name), def.require, session_type, &mut errors);
            if tasks.insert(def.name, Arc::new(RegisteredTask::new(def))).is_some() {
                errors.add(format!("task {:?} is defined twice, or built in", def.name));
            }
        }
        queues::check(&tasks, &mut errors);
        remotes.insert(REPORT.name, &REPORT);
        remotes.insert(CONNECTIONS.name, &CONNECTIONS);
        if built_in {
            remotes.insert(CANCEL.name, &CANCEL);
            remotes.insert(QUIET.name, &QUIET);
        }
        for def in definitions.remotes {
            check_remote(&def, &definitions.states, &mut errors);
            check_session(&format!("remote method {:?}", def.name), def.require, session_type, &mut errors);
            if remotes.insert(def.name, &*Box::leak(Box::new(def))).is_some() {
                errors.add(format!("remote method {:?} is defined twice", def.name));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            actions,
            tasks,
            remotes,
            layers: definitions.layers.into(),
            limits: limits.into_limits(),
            states: Arc::new(definitions.states),
            session_type,
            hooks: definitions.hooks,
            observers: Observers::new(definitions.observers),
        })
    }

    /// Checks the definitions that depend on settings.
    ///
    /// # Errors
    ///
    /// All errors at once: unique keys that are kept for a shorter time than their tasks may take, settings of limits that the
    /// application does not have.
    pub(crate) fn check_settings(&self, config: &Config) -> Result<(), DefinitionErrors> {
        let mut errors = DefinitionErrors::default();
        for task in self.tasks() {
            let (unique, limit) = (task.def.unique, task.limit(config));
            if is_too_short(unique.lifetime, unique.until, limit) {
                let limit = limit.unwrap_or_default();
                errors.add(format!(
                    "task {:?}: unique_for is {:?}, and its deadline is {limit:?}: its key would be free while it runs",
                    task.def.name, unique.lifetime
                ));
            }
        }
        limits::check_settings(&self.limits, &config.limits, &mut errors);
        if errors.0.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Finds an action; without a version the newest.
    pub fn find(&self, name: &str, version: Option<u32>) -> Option<&Arc<RegisteredAction>> {
        let versions = self.actions.get(name)?;
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|action| action.def.version == version),
        }
    }

    /// All versions of an action, the newest last.
    pub fn versions(&self, name: &str) -> &[Arc<RegisteredAction>] {
        self.actions.get(name).map_or(&[], Vec::as_slice)
    }

    /// All actions, by name and version.
    pub fn actions(&self) -> impl Iterator<Item = &Arc<RegisteredAction>> {
        self.actions.values().flatten()
    }

    /// Finds a task.
    pub fn task(&self, name: &str) -> Option<&Arc<RegisteredTask>> {
        self.tasks.get(name)
    }

    /// All tasks, by name.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<RegisteredTask>> {
        self.tasks.values()
    }

    /// Finds a remote method.
    pub fn remote(&self, name: &str) -> Option<&'static RemoteDef> {
        self.remotes.get(name).copied()
    }

    /// All limits, each once.
    pub(crate) fn limits(&self) -> &[Arc<Limit>] {
        &self.limits
    }

    pub(crate) fn layers(&self) -> &[Arc<dyn Layer>] {
        &self.layers
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("actions", &self.actions).finish_non_exhaustive()
    }
}

impl RegisteredAction {
    fn new(action: GroupedAction, gate: Option<Arc<ActionGate>>) -> Self {
        let GroupedAction { def, groups } = action;
        let schema = (def.input)();
        let fields = fields_of(schema.as_value()).into_iter().map(str::to_owned).collect();
        let takes_files = has_file(schema.as_value());
        let mut secrets = Vec::new();
        collect_secrets(schema.as_value(), &mut secrets);
        // Definitions live as long as the process; a node that is started again in it (tests) leaks a few hundred bytes.
        let def = &*Box::leak(Box::new(def));
        let metrics = ActionMetrics::new(def.name, def.version);
        Self { def, fields, takes_files, secrets, groups, gate, metrics }
    }

    /// The gate of its groups, as its calls have it.
    pub(crate) fn call_gate(&self) -> Option<Arc<dyn CallGate>> {
        self.gate.clone().map(|gate| gate as Arc<dyn CallGate>)
    }

    /// The groups that it is in, for people; `None` if it is in none.
    pub fn group(&self) -> Option<GroupView> {
        (!self.groups.is_empty()).then(|| GroupView::new(&self.groups))
    }

    /// Its limits, those of its groups included.
    pub fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.gate.iter().flat_map(|gate| gate.limits())
    }

    /// The parameters of a call, as they may be shown: the declared fields, with secrets as `[FILTERED]`.
    pub fn shown(&self, params: &Params, config: &Config) -> Map<String, Value> {
        let secrets = || self.secrets.iter().chain(&config.general.secret_params);
        let mut shown = params.to_json(&|name| secrets().any(|secret| secret == name));
        shown.retain(|name, _| self.fields.contains(name));
        shown
    }
}

/// Everything that is wrong with an application, found before it serves.
#[derive(Debug, Default)]
pub struct DefinitionErrors(Vec<String>);

impl DefinitionErrors {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a sentence.
    pub fn add(&mut self, error: String) {
        self.0.push(error);
    }
}

impl fmt::Display for DefinitionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for DefinitionErrors {}

/// Fields that transports add to an answer's own.
const RESERVED: [&str; 5] = ["context", "messageId", "error", "serverInformation", "requesterInformation"];

/// The paths that are taken, by shape: as first written, and with their methods.
type Routes = HashMap<String, (String, HashSet<Method>)>;

fn check_action(def: &ActionDef, states: &States, routes: &mut Routes, errors: &mut DefinitionErrors) {
    let name = def.name;
    if !is_name(name) {
        errors.add(format!("action name {name:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -"));
    }
    if def.version == 0 {
        errors.add(format!("action {name:?}: versions start at 1"));
    }
    if def.exposure == Exposure::Internal && !def.routes.is_empty() {
        errors.add(format!("action {name:?} is internal and names a route"));
    }
    let input = (def.input)();
    let fields = fields_of(input.as_value());
    for route in def.routes {
        let path = path_of(def, route);
        if !path.starts_with('/') {
            errors.add(format!("action {name:?}: the path {path:?} must start with `/`"));
        }
        let mut params = BTreeSet::new();
        for param in path_params(&path) {
            if !fields.contains(param) {
                errors.add(format!(
                    "action {name:?}: the path {path:?} has {{{param}}}, and its input has no such field"
                ));
            }
            if !params.insert(param) {
                errors.add(format!("action {name:?}: the path {path:?} has {{{param}}} twice: rename one of them"));
            }
        }
        let (known, methods) = routes.entry(shape(&path)).or_insert_with(|| (path.clone(), HashSet::new()));
        if *known != path {
            errors.add(format!("action {name:?}: {path} and {known} are the same path: name their parameters alike"));
        }
        if !methods.insert(route.method) {
            errors.add(format!("action {name:?}: {} {path} is taken by another action", route.method.as_str()));
        }
    }
    let output = (def.output)();
    let fields = fields_of(output.as_value());
    for field in RESERVED.iter().filter(|field| fields.contains(*field)) {
        errors.add(format!("action {name:?}: the output field {field:?} is reserved"));
    }
    check_states(&format!("action {name:?}"), def.require, states, errors);
}

fn check_task(def: &TaskDef, states: &States, errors: &mut DefinitionErrors) {
    let name = def.name;
    if !is_name(name) {
        errors.add(format!("task name {name:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -"));
    }
    if !TaskSettings::is_queue(def.queue) {
        errors.add(format!(
            "task {name:?}: the queue {:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -",
            def.queue
        ));
    }
    if def.retry.attempts == 0 {
        errors.add(format!("task {name:?}: one attempt at least"));
    }
    if !(0.0..=1.0).contains(&def.retry.jitter) {
        errors.add(format!("task {name:?}: jitter is from 0 to 1"));
    }
    let input = (def.input)();
    if has_file(input.as_value()) {
        errors.add(format!("task {name:?}: a job cannot carry a file"));
    }
    if let Some(schedule) = &def.schedule {
        if let Some(mistake) = schedule.mistake() {
            errors.add(format!("task {name:?}: {mistake}"));
        }
        if !matches!(def.unique.key, UniqueKey::None) {
            errors.add(format!("task {name:?} is periodic: its ticks are unique by `overlap`, without a key"));
        }
        if let Err(error) = (def.check)(&Params::default()) {
            let fields: Vec<&str> = error.details().iter().map(|detail| detail.path.as_str()).collect();
            let fields = fields.join(", ");
            errors.add(format!("task {name:?} is periodic, and its ticks have no input: give {fields} a default"));
        }
    }
    let fields = fields_of(input.as_value());
    for field in def.unique.key.fields().iter().filter(|field| !fields.contains(*field)) {
        errors.add(format!("task {name:?} is unique by {field:?}, and its input has no such field"));
    }
    for field in def.fair_by.iter().filter(|field| !fields.contains(*field)) {
        errors.add(format!("task {name:?} is fair by {field:?}, and its input has no such field"));
    }
    check_states(&format!("task {name:?}"), def.require, states, errors);
}

fn check_remote(def: &RemoteDef, states: &States, errors: &mut DefinitionErrors) {
    if !is_name(def.name) {
        errors.add(format!("remote name {:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -", def.name));
    }
    if OPERATIONS.iter().any(|row| row.method == Some(def.name)) {
        errors.add(format!("remote method {:?} is built in", def.name));
    }
    check_states(&format!("remote method {:?}", def.name), def.require, states, errors);
}

fn check_states(owner: &str, require: fn(&mut Requirements), states: &States, errors: &mut DefinitionErrors) {
    let mut requirements = Requirements::default();
    require(&mut requirements);
    for missing in requirements.missing(states) {
        errors.add(format!("{owner} needs a state of type {missing}, and the application has none"));
    }
}

/// The type of the application's sessions.
fn check_session_types(types: &[SessionType], errors: &mut DefinitionErrors) -> Option<SessionType> {
    let first = types.first()?;
    for other in types.iter().filter(|other| other.id != first.id) {
        errors.add(format!(
            "the application has sessions of the types {} and {}: it can have one, so put the fields of both into one",
            first.name, other.name
        ));
    }
    Some(*first)
}

fn check_session(
    owner: &str,
    require: fn(&mut Requirements),
    session_type: Option<SessionType>,
    errors: &mut DefinitionErrors,
) {
    let mut requirements = Requirements::default();
    require(&mut requirements);
    for other in requirements.other_sessions(session_type.map(|session_type| session_type.id)) {
        errors.add(match session_type {
            None => format!("{owner} needs sessions of type {other}: add them by `.session::<{other}>()`"),
            Some(own) => {
                format!("{owner} needs sessions of type {other}, and those of the application are {}", own.name)
            }
        });
    }
}

/// The path of a route under the prefix of actions.
pub fn path_of(def: &ActionDef, route: &Route) -> String {
    if route.path.is_empty() { format!("/{}", def.name) } else { route.path.to_owned() }
}

/// The names of the parameters in a path.
fn path_params(path: &str) -> impl Iterator<Item = &str> {
    let braced = path.split('/').filter_map(|segment| segment.split_once('{')?.1.split_once('}'));
    braced.map(|(name, _)| name.trim_start_matches('*'))
}

/// A path with its parameters unnamed: two routes of one shape take the same requests.
fn shape(path: &str) -> String {
    let unnamed = |segment: &str| match segment.strip_prefix('{') {
        Some(rest) if rest.starts_with('*') => "{*}".to_owned(),
        Some(_) => "{}".to_owned(),
        None => segment.to_owned(),
    };
    path.split('/').map(unnamed).collect::<Vec<_>>().join("/")
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    (1..=100).contains(&name.len()) && name.bytes().all(allowed)
}

/// Collects the names of all write-only properties of a schema, at any depth.
fn collect_secrets(schema: &Value, secrets: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let properties = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
            let is_secret = |value: &Value| value.get("writeOnly") == Some(&Value::Bool(true));
            secrets.extend(properties.filter(|(_, value)| is_secret(value)).map(|(name, _)| name.clone()));
            fields.values().for_each(|value| collect_secrets(value, secrets));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_secrets(item, secrets)),
        _ => {}
    }
}

/// Whether any part of a schema has the form of an [`Upload`](crate::params::Upload).
fn has_file(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("format").is_some_and(|format| format == "binary") || fields.values().any(has_file)
        }
        Value::Array(items) => items.iter().any(has_file),
        _ => false,
    }
}

/// The names that a value may have at its top: its own, and those of the schemas that it refers to or combines.
fn fields_of(root: &Value) -> BTreeSet<&str> {
    let (mut fields, mut followed, mut open) = (BTreeSet::new(), HashSet::new(), vec![root]);
    while let Some(schema) = open.pop() {
        let properties = schema.get("properties").and_then(Value::as_object);
        fields.extend(properties.into_iter().flatten().map(|(name, _)| name.as_str()));
        let forms = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema.get(key)?.as_array());
        open.extend(forms.flatten());
        let target = schema.get("$ref").and_then(Value::as_str).filter(|target| followed.insert(*target));
        open.extend(target.and_then(|target| root.pointer(target.strip_prefix('#')?)));
    }
    fields
}

#[cfg(test)]
mod tests;

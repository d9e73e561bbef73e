//! An application's definitions: actions, layers, hooks, remote methods and state, all checked at boot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::action::{ActionDef, Exposure, Method, Route};
use crate::config::Config;
use crate::context::{Requirements, States};
use crate::event::Observer;
use crate::hooks::{ConnectionHook, RecipientHook, RoomHook};
use crate::layer::Layer;
use crate::metrics::ActionMetrics;
use crate::params::Params;
use crate::rpc::RemoteDef;

/// What an application is made of, before it is checked.
#[derive(Default)]
pub struct Definitions {
    /// What clients may call.
    pub actions: Vec<ActionDef>,
    /// What other nodes may call on a connection.
    pub remotes: Vec<RemoteDef>,
    /// What surrounds every call, outermost first.
    pub layers: Vec<Arc<dyn Layer>>,
    /// What actions share.
    pub states: States,
    /// Who is asked when connections come and go.
    pub connection_hooks: Vec<Arc<dyn ConnectionHook>>,
    /// Who is asked when rooms are joined, left and spoken in.
    pub room_hooks: Vec<Arc<dyn RoomHook>>,
    /// Who is asked for each recipient of a message.
    pub recipient_hooks: Vec<Arc<dyn RecipientHook>>,
    /// Who is told what happens.
    pub observers: Vec<Arc<dyn Observer>>,
}

impl fmt::Debug for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definitions").field("actions", &self.actions).finish_non_exhaustive()
    }
}

/// An action and what a node keeps beside its definition.
pub struct Registered {
    /// The definition.
    pub def: &'static ActionDef,
    /// The names of its input's fields.
    pub fields: Vec<String>,
    /// Whether its input has a place for a file.
    pub takes_files: bool,
    /// The names, at any depth of it, that never appear in a log.
    secrets: Vec<String>,
    pub(crate) metrics: ActionMetrics,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.def.fmt(f)
    }
}

/// An application's definitions, checked.
pub struct Registry {
    actions: BTreeMap<&'static str, Vec<Arc<Registered>>>,
    remotes: HashMap<&'static str, &'static RemoteDef>,
    layers: Box<[Arc<dyn Layer>]>,
    pub(crate) states: States,
    pub(crate) connection_hooks: Box<[Arc<dyn ConnectionHook>]>,
    pub(crate) room_hooks: Box<[Arc<dyn RoomHook>]>,
    pub(crate) recipient_hooks: Box<[Arc<dyn RecipientHook>]>,
    pub(crate) observers: Box<[Arc<dyn Observer>]>,
}

impl Registry {
    /// Checks everything that can be checked before the first call.
    ///
    /// # Errors
    ///
    /// All faults at once: doubled names, versions and routes, names and paths that cannot be used, parameters of paths
    /// that the input lacks, outputs with reserved names, states that guards need and nobody gave.
    pub fn new(definitions: Definitions) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut actions: BTreeMap<&'static str, Vec<Arc<Registered>>> = BTreeMap::new();
        let mut routes = Routes::new();
        for def in definitions.actions {
            check_action(&def, &definitions.states, &mut routes, &mut faults);
            let versions = actions.entry(def.name).or_default();
            if versions.iter().any(|other| other.def.version == def.version) {
                faults.add(format!("action {:?} version {} is defined twice", def.name, def.version));
            }
            versions.push(Arc::new(Registered::new(def)));
            versions.sort_by_key(|action| action.def.version);
        }
        let mut remotes = HashMap::new();
        for def in definitions.remotes {
            check_remote(&def, &definitions.states, &mut faults);
            if remotes.insert(def.name, &*Box::leak(Box::new(def))).is_some() {
                faults.add(format!("remote method {:?} is defined twice", def.name));
            }
        }
        if !faults.0.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            actions,
            remotes,
            layers: definitions.layers.into(),
            states: definitions.states,
            connection_hooks: definitions.connection_hooks.into(),
            room_hooks: definitions.room_hooks.into(),
            recipient_hooks: definitions.recipient_hooks.into(),
            observers: definitions.observers.into(),
        })
    }

    /// Finds an action; without a version the newest.
    pub fn find(&self, name: &str, version: Option<u32>) -> Option<&Arc<Registered>> {
        let versions = self.actions.get(name)?;
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|action| action.def.version == version),
        }
    }

    /// All versions of an action, the newest last.
    pub fn versions(&self, name: &str) -> &[Arc<Registered>] {
        self.actions.get(name).map_or(&[], Vec::as_slice)
    }

    /// All actions, by name and version.
    pub fn actions(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.actions.values().flatten()
    }

    /// Finds a remote method.
    pub fn remote(&self, name: &str) -> Option<&'static RemoteDef> {
        self.remotes.get(name).copied()
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

impl Registered {
    fn new(def: ActionDef) -> Self {
        let schema = (def.input)();
        let fields = fields_of(schema.as_value()).into_iter().map(str::to_owned).collect();
        let takes_files = has_file(schema.as_value());
        let mut secrets = Vec::new();
        collect_secrets(schema.as_value(), &mut secrets);
        // Definitions live as long as the process; a node that is started again in it (tests) leaks a few hundred bytes.
        let def = &*Box::leak(Box::new(def));
        Self { def, fields, takes_files, secrets, metrics: ActionMetrics::new(def.name, def.version) }
    }

    /// What came with a call, as it may be shown: of the declared fields, with secrets as `[FILTERED]`.
    pub fn shown(&self, params: &Params, config: &Config) -> Map<String, Value> {
        let secrets = || self.secrets.iter().chain(&config.general.secret_params);
        let mut shown = params.to_json(&|name| secrets().any(|secret| secret == name));
        shown.retain(|name, _| self.fields.contains(name));
        shown
    }
}

/// Everything that is wrong with an application, found before it serves anybody.
#[derive(Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Adds a sentence.
    pub fn add(&mut self, fault: String) {
        self.0.push(fault);
    }

    /// The sentences.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

/// Fields that transports put beside an answer's own.
const RESERVED: [&str; 5] = ["context", "messageId", "error", "serverInformation", "requesterInformation"];

/// The paths that are taken, by shape: as first written, and by which methods.
type Routes = HashMap<String, (String, HashSet<Method>)>;

fn check_action(def: &ActionDef, states: &States, routes: &mut Routes, faults: &mut Faults) {
    let name = def.name;
    if !is_name(name) {
        faults.add(format!("action name {name:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -"));
    }
    if def.version == 0 {
        faults.add(format!("action {name:?}: versions start at 1"));
    }
    if def.exposure == Exposure::Internal && !def.routes.is_empty() {
        faults.add(format!("action {name:?} is internal and names a route"));
    }
    let input = (def.input)();
    let fields = fields_of(input.as_value());
    for route in def.routes {
        let path = path_of(def, route);
        if !path.starts_with('/') {
            faults.add(format!("action {name:?}: the path {path:?} must start with `/`"));
        }
        for param in path_params(&path).filter(|param| !fields.contains(param)) {
            faults.add(format!("action {name:?}: the path {path:?} has {{{param}}}, and its input has no such field"));
        }
        let (known, methods) = routes.entry(shape(&path)).or_insert_with(|| (path.clone(), HashSet::new()));
        if *known != path {
            faults.add(format!("action {name:?}: {path} and {known} are the same path: name their parameters alike"));
        }
        if !methods.insert(route.method) {
            faults.add(format!("action {name:?}: {} {path} is taken by another action", route.method.as_str()));
        }
    }
    let output = (def.output)();
    let fields = fields_of(output.as_value());
    for field in RESERVED.iter().filter(|field| fields.contains(*field)) {
        faults.add(format!("action {name:?}: the output field {field:?} is reserved"));
    }
    check_states(&format!("action {name:?}"), def.require, states, faults);
}

fn check_remote(def: &RemoteDef, states: &States, faults: &mut Faults) {
    if !is_name(def.name) {
        faults.add(format!("remote name {:?} must be 1 to 100 characters of A-Z a-z 0-9 : . _ -", def.name));
    }
    if crate::connections::BuiltIn::NAMES.contains(&def.name) {
        faults.add(format!("remote method {:?} is built in", def.name));
    }
    check_states(&format!("remote method {:?}", def.name), def.require, states, faults);
}

fn check_states(who: &str, require: fn(&mut Requirements), states: &States, faults: &mut Faults) {
    let mut requirements = Requirements::default();
    require(&mut requirements);
    for missing in requirements.missing(states) {
        faults.add(format!("{who} needs a state of type {missing}, and the application has none"));
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

/// The names of all properties that are only ever written, wherever in a schema.
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

/// Whether anything in a schema has the form of an [`Upload`](crate::params::Upload).
fn has_file(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("format").is_some_and(|format| format == "binary") || fields.values().any(has_file)
        }
        Value::Array(items) => items.iter().any(has_file),
        _ => false,
    }
}

/// The names that a value may have at its top: its own, and those of all it refers to or may be.
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

//! What a function sees of its call: [`Context`], and the guards that are extracted from it.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::action::Action;
use crate::answer::Outcome;
use crate::connection::Connection;
use crate::dispatch;
use crate::error::ActionError;
use crate::node::{Generation, Node};
use crate::params::Params;

/// One call, as its function, its guards and its layers see it. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Facts>);

struct Facts {
    node: Node,
    name: &'static str,
    caller: Arc<Caller>,
    request: RequestId,
    deadline: Option<Instant>,
    depth: u8,
}

impl Context {
    /// How deep calls may nest through [`Context::call`].
    pub const MAX_DEPTH: u8 = 16;

    pub(crate) fn new(
        node: Node,
        name: &'static str,
        caller: Arc<Caller>,
        request: RequestId,
        deadline: Option<Instant>,
    ) -> Self {
        Self(Arc::new(Facts { node, name, caller, request, deadline, depth: 0 }))
    }

    /// The node that runs the call: rooms, connections, cache, locks and settings.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The name of the action or remote method that runs.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Who called.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The socket the call came over, or on which a remote method runs.
    pub fn connection(&self) -> Option<&Connection> {
        self.0.caller.connection.as_ref()
    }

    /// The name of this request in logs and in the header `x-request-id`.
    pub fn request_id(&self) -> &RequestId {
        &self.0.request
    }

    /// When the call's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Calls another action of this application, through the same layers, guards and validation as any client.
    ///
    /// It has the other's deadline, and ends with this call in any case; it is counted under its own name.
    ///
    /// Cancel safe: dropping the future drops the call.
    ///
    /// # Errors
    ///
    /// The other action's own; `timeout` at its deadline; `internal` if calls nest deeper than [`Context::MAX_DEPTH`].
    pub async fn call<A>(&self, input: A::Input) -> Result<A::Output, ActionError>
    where
        A: Action,
        A::Input: Serialize,
        A::Output: DeserializeOwned,
    {
        self.call_encoded::<A>(&input).await?.decode()
    }

    /// Calls another action and hands its answer on as it is: for answers with a status, and for bodies.
    ///
    /// # Errors
    ///
    /// Those of [`Context::call`].
    pub async fn call_encoded<A>(&self, input: &A::Input) -> Outcome
    where
        A: Action,
        A::Input: Serialize,
    {
        if self.0.depth >= Self::MAX_DEPTH {
            return Err(ActionError::internal("actions call each other too deeply"));
        }
        let input = serde_json::value::to_raw_value(input).map_err(ActionError::internal)?;
        dispatch::nested(&A::DEF, self, Params::from_raw_json(input)?).await
    }

    /// The context of a call that this one makes.
    pub(crate) fn nested(&self, name: &'static str, deadline: Option<Instant>) -> Self {
        let Facts { node, caller, request, depth, .. } = &*self.0;
        let (node, caller, request) = (node.clone(), caller.clone(), request.clone());
        Self(Arc::new(Facts { node, name, caller, request, deadline, depth: depth + 1 }))
    }

    pub(crate) fn is_nested(&self) -> bool {
        self.0.depth > 0
    }
}

/// A context is the node's handle as well: `ctx.rooms()`, `ctx.connections()`, `ctx.cache()`.
impl Deref for Context {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0.node
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.0.name)
            .field("request", &self.0.request)
            .field("caller", &self.0.caller)
            .finish_non_exhaustive()
    }
}

/// Who called, over which transport.
#[derive(Debug)]
pub struct Caller {
    /// How the call came.
    pub transport: Origin,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// The client's address, behind trusted proxies the one they tell.
    pub remote: Option<SocketAddr>,
    /// The headers of the HTTP request; empty for a socket, whose connect hook saw them.
    pub headers: HeaderMap,
    /// The socket.
    pub connection: Option<Connection>,
}

impl Caller {
    /// The application itself: its jobs, its command line, another node.
    pub fn internal() -> Self {
        Self {
            transport: Origin::Internal,
            fingerprint: Arc::from(""),
            remote: None,
            headers: HeaderMap::new(),
            connection: None,
        }
    }

    /// A call that came over `connection`, or runs on it.
    pub fn socket(connection: Connection) -> Self {
        Self {
            transport: Origin::Websocket,
            fingerprint: connection.fingerprint().into(),
            remote: Some(connection.remote()),
            headers: HeaderMap::new(),
            connection: Some(connection),
        }
    }
}

/// How a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An HTTP request.
    Http,
    /// A frame of a socket.
    Websocket,
    /// The application itself.
    Internal,
}

impl Origin {
    /// Its name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Websocket => "websocket",
            Self::Internal => "internal",
        }
    }
}

/// The name of a request: given by a trusted proxy, or `<generation>-<number>`.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestId {
    /// What a trusted proxy called it.
    Given(Arc<str>),
    /// Ours.
    Ours(Generation, u64),
}

impl RequestId {
    /// Hands out the name as text. Every response carries it, so it is written in place and not formatted.
    pub fn with_text<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        let (generation, number) = match self {
            Self::Given(name) => return take(name),
            Self::Ours(generation, number) => (generation.as_bytes(), *number),
        };
        let mut text = [b'-'; Generation::LENGTH + 1 + 16];
        text[..Generation::LENGTH].copy_from_slice(generation);
        let digits = number.checked_ilog2().map_or(1, |bits| bits as usize / 4 + 1);
        let text = &mut text[..Generation::LENGTH + 1 + digits];
        for (place, digit) in text.iter_mut().rev().zip(0..digits) {
            *place = b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize];
        }
        take(std::str::from_utf8(text).expect("a generation and digits are ASCII"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A guard: a fact about the call that a function asks for as a parameter, and cannot run without.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of an action",
    label = "the parameters between `Context` and the input are guards",
    note = "implement `phalanx::FromContext` for it, or put `#[input]` on it and make it the last parameter"
)]
pub trait FromContext: Sized + Send {
    /// Establishes the fact, or says why it does not hold.
    ///
    /// # Errors
    ///
    /// What the client is told instead of the answer: `unauthenticated`, `forbidden`, ….
    fn from_context(ctx: &Context) -> impl Future<Output = Result<Self, ActionError>> + Send;

    /// Names the states this guard reads, so that the boot fails if one is missing.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

impl FromContext for Connection {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.connection().cloned().ok_or_else(|| ActionError::forbidden("this action needs a websocket connection"))
    }
}

/// A part of the application that its actions share, by type; given to `App::state`, checked at boot.
pub struct State<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.node().state::<T>().map(Self).ok_or_else(|| ActionError::internal(Missing(type_name::<T>())))
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no state of type {0}")]
struct Missing(&'static str);

/// The states of an application, one of a type.
#[derive(Default)]
pub struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Adds a state, replacing one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(state));
    }

    /// The state of that type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|state| state.downcast().ok())
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}

/// What the guards of one function need, collected for the check at boot.
#[derive(Debug, Default)]
pub struct Requirements(Vec<(TypeId, &'static str)>);

impl Requirements {
    /// Asks for a state of type `T`.
    pub fn state<T: 'static>(&mut self) {
        self.0.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// The types that `states` lacks.
    pub(crate) fn missing(&self, states: &States) -> Vec<&'static str> {
        self.0.iter().filter(|(id, _)| !states.0.contains_key(id)).map(|(_, name)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_by_its_node_and_its_number() {
        let generation = Generation::random();
        for number in [0, 1, 0xf, 0x10, 0xabc, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(RequestId::Ours(generation, number).to_string(), format!("{generation}-{number:x}"));
        }
        assert_eq!(RequestId::Given("proxy-1".into()).to_string(), "proxy-1");
    }
}

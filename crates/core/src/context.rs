//! The context of a call: the first parameter of actions and remote methods that need it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::answer::Outcome;
use crate::cache::Cache;
use crate::call::clock::CallClock;
use crate::call::head::{HeadState, StagedHead};
use crate::call::slots::CallSlots;
use crate::caller::Caller;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::connection::Connection;
use crate::cookie::{Cookie, Cookies};
use crate::error::{ActionError, ErrorKind};
use crate::future::BoxFuture;
use crate::id::RequestId;
use crate::locks::Locks;
use crate::node::Node;
use crate::origin::Origin;
use crate::params::Params;
use crate::rate_limit::RateLimits;
use crate::remote::Connections;
use crate::rooms::Rooms;
use crate::task::attempt::AttemptFacts;
use crate::task::handle::Tasks;
use crate::task::origin::{JobOrigin, is_traceparent};

/// One call, as its function, its guards and its layers see it. Cheap to clone.
///
/// ```
/// use phalanx_core::{ActionError, Context};
///
/// /// The body of an action that greets the room of its caller.
/// async fn wave(ctx: Context) -> Result<String, ActionError> {
///     let from = ctx.connection().map_or("somewhere", |connection| connection.id().as_str());
///     let text = format!("{from} waves, by {} version {}", ctx.name(), ctx.version());
///     ctx.rooms().say("lobby", &text).await?;
///     Ok(text)
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
/// #     run: |ctx, _| answering(async move { Answer::json(&wave(ctx).await?) }),
/// # };
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// # setup.definitions.actions.push(def);
/// # setup.config.rooms.start.push("lobby".into());
/// # let engine = Engine::start(setup).await?;
/// # let answer = call_internal(&engine, "example", None, Params::default()).await;
/// # assert_eq!(answer?.decode::<String>()?, "somewhere waves, by example version 1");
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Context(Arc<CallFacts>);

/// The engine behind a context: the author's handle, and calls of other actions.
pub(crate) trait CallHost: Send + Sync {
    fn node(&self) -> &Node;

    /// The limits of the application.
    fn rate_limits(&self) -> &RateLimits;

    /// The path of the first route for GET of an action whose only parameter is an id, with that id.
    fn path_with_id(&self, action: (&str, Option<u32>), id: &str) -> Option<String>;

    /// A name for the next request.
    fn next_request_id(&self) -> RequestId;

    /// The addresses that the node listens on, by the names of its transports.
    fn addresses(&self) -> BTreeMap<String, SocketAddr>;

    /// Calls an action, by its name and version, within another call.
    fn call_nested<'a>(
        self: Arc<Self>,
        action: (&'a str, Option<u32>),
        around: &'a Context,
        params: Params,
    ) -> BoxFuture<'a, Outcome>;
}

/// The gate of an action that has limits, or is in a group.
pub(crate) trait CallGate: Any + Send + Sync {
    /// Lets a call pass to the guards of the action.
    ///
    /// # Errors
    ///
    /// The first refusal.
    fn pass<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<(), ActionError>>;

    /// Whether a call passes [`Self::pass_to_body`] as well.
    fn has_late_limits(&self, ctx: &Context) -> bool;

    /// Lets a call that has passed the guards come to its body.
    ///
    /// # Errors
    ///
    /// The first refusal.
    fn pass_to_body<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<(), ActionError>>;
}

/// The part of a call that is there before its body: guards and the first half of layers decide by it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallHead<'a> {
    /// The path of the HTTP request.
    pub path: Option<&'a str>,
    /// The query of the HTTP request, as it came.
    pub query: Option<&'a str>,
    /// The headers of the HTTP request, or in a connect hook of the upgrade; empty for a socket.
    pub headers: &'a HeaderMap,
    /// The params of path and query; over a socket and for calls of the application itself all params.
    pub params: &'a Params,
    /// The caller.
    pub caller: &'a Caller,
}

struct CallFacts {
    host: Arc<dyn CallHost>,
    name: &'static str,
    version: u32,
    caller: Arc<Caller>,
    id: RequestId,
    /// The path and the query of an HTTP request.
    uri: Option<Uri>,
    /// The params of path and query; all of a call that has no body.
    head: Params,
    clock: CallClock,
    raw_body: OnceLock<Bytes>,
    /// The version that answers: the called one, unless the body names another.
    answering: AtomicU32,
    depth: u8,
    /// The attempt of a task, of which the call is a part.
    attempt: Option<Arc<AttemptFacts>>,
    /// The gate that the call passes beside the guards of its action; `None` without groups and limits.
    gate: Option<Arc<dyn CallGate>>,
    /// The call around all others, of which this one is a part; `None` for that one itself.
    outermost: Option<Context>,
    /// The values that the parts of the outermost call share.
    slots: CallSlots,
    /// The head of the answer to the outermost call.
    answer_head: HeadState,
}

/// The facts of a call, as its [`Context`] begins.
pub(crate) struct NewCall {
    pub(crate) host: Arc<dyn CallHost>,
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) caller: Arc<Caller>,
    pub(crate) id: RequestId,
    pub(crate) uri: Option<Uri>,
    pub(crate) head: Params,
    pub(crate) started: Instant,
    /// How long it may run.
    pub(crate) limit: Option<Duration>,
    /// The attempt of a task that the call is.
    pub(crate) attempt: Option<Arc<AttemptFacts>>,
    /// The gate of the action.
    pub(crate) gate: Option<Arc<dyn CallGate>>,
}

impl Context {
    /// How deep calls may nest through [`Context::call`].
    pub const MAX_DEPTH: u8 = 16;

    pub(crate) fn new(call: NewCall) -> Self {
        let NewCall { host, name, version, caller, id, uri, head, started, limit, attempt, gate } = call;
        let clock = CallClock::new(started, limit);
        let (raw_body, answering) = (OnceLock::new(), AtomicU32::new(version));
        let depth = 0;
        Self(Arc::new(CallFacts {
            host,
            name,
            version,
            caller,
            id,
            uri,
            head,
            clock,
            raw_body,
            answering,
            depth,
            attempt,
            gate,
            outermost: None,
            slots: CallSlots::default(),
            answer_head: HeadState::default(),
        }))
    }

    /// The context of a hook, under its name.
    pub(crate) fn of_hook(
        host: Arc<dyn CallHost>,
        name: &'static str,
        (caller, id): (Arc<Caller>, RequestId),
        limit: Option<Duration>,
    ) -> Self {
        let (head, started) = (Params::default(), Instant::now());
        let (uri, attempt, gate) = (None, None, None);
        Self::new(NewCall { host, name, version: 1, caller, id, uri, head, started, limit, attempt, gate })
    }

    /// The name of this request in logs and in the header `x-request-id`.
    pub fn id(&self) -> &RequestId {
        &self.0.id
    }

    /// The name of the action, remote method or hook that runs.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The version of the action that runs; 1 for a remote method and a hook, which have no versions.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The socket of the caller, or the one on which a remote method runs.
    pub fn connection(&self) -> Option<&Connection> {
        self.0.caller.connection.as_ref()
    }

    /// When the call's time is up. It stands still while the body is awaited, so it is final once the body is there.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.clock.deadline()
    }

    /// The part of the call that is there before its body, for guards and layers: path, query, headers, caller.
    pub fn head(&self) -> CallHead<'_> {
        CallHead {
            path: self.0.uri.as_ref().map(Uri::path),
            query: self.0.uri.as_ref().and_then(Uri::query),
            headers: &self.0.caller.headers,
            params: &self.0.head,
            caller: &self.0.caller,
        }
    }

    /// The cookies of the HTTP request, or in a connect hook of the upgrade; none over a socket.
    pub fn cookies(&self) -> Cookies<'_> {
        Cookies::of(&self.0.caller.headers)
    }

    /// Sets a cookie with whatever is answered: a value, an error, a timeout, whichever action of the application was called
    /// within this call. A later one of the same name, path and domain replaces it. [`Reply::cookie`](crate::Reply::cookie)
    /// sets one with the answer that it belongs to alone.
    ///
    /// ```
    /// use phalanx_core::{ActionError, Context, Cookie};
    ///
    /// async fn choose(ctx: Context) -> Result<(), ActionError> {
    ///     let theme = if ctx.cookies().get("theme") == Some("dark") { "light" } else { "dark" };
    ///     ctx.set_cookie(Cookie::new("theme", theme))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `forbidden` with the code `cookie_needs_http` if the caller is no HTTP client: a socket cannot be given a cookie;
    /// `conflict` with the code `response_started` once the answer has begun, as in the stream of a body; `internal` for a
    /// cookie that cannot be set, with the [`CookieError`](crate::CookieError) as its source, and for the one beyond
    /// [`MAX_STAGED`](crate::call::head::MAX_STAGED) of an answer.
    pub fn set_cookie(&self, cookie: Cookie) -> Result<(), ActionError> {
        self.set_cookies([cookie])
    }

    /// Sets all of these cookies, or, if one cannot be set, none.
    pub(crate) fn set_cookies(&self, cookies: impl IntoIterator<Item = Cookie>) -> Result<(), ActionError> {
        if self.outermost().caller().transport != Origin::Http {
            let message = "a cookie can be set over HTTP alone";
            return Err(ActionError::new(ErrorKind::Forbidden, "cookie_needs_http", message));
        }
        let is_secure = self.node().has_secure_cookies();
        Ok(self.stage(|head| head.set_cookies(cookies, is_secure))??)
    }

    /// A parameter of the path, `{name}`, decoded as a field of the input is: what a guard decides by before the body comes.
    ///
    /// Over HTTP it is the path's alone: neither query nor body can replace it. Over a socket, and in a call by
    /// [`Context::call`], it is the param of that name. So it is in both cases what the input has in that field.
    ///
    /// ```
    /// use phalanx_core::{ActionError, Context};
    ///
    /// /// The ticket that a guard of `/tickets/{id}/file` is about.
    /// fn ticket_of(ctx: &Context) -> Result<u64, ActionError> {
    ///     let id: u64 = ctx.path("id")?;
    ///     Ok(id)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `invalid_input` if the path that was called has no such parameter and `T` is no `Option`, or if it is no `T`.
    pub fn path<T: DeserializeOwned>(&self, name: &str) -> Result<T, ActionError> {
        self.0.head.decode_one(name, self.0.uri.is_some())
    }

    /// The rooms of the cluster.
    pub fn rooms(&self) -> &Rooms {
        self.node().rooms()
    }

    /// The connections of the cluster.
    pub fn connections(&self) -> &Connections {
        self.node().connections()
    }

    /// The cache that nodes share.
    pub fn cache(&self) -> &Cache {
        self.node().cache()
    }

    /// The locks that nodes share.
    pub fn locks(&self) -> &Locks {
        self.node().locks()
    }

    /// The nodes that run the application together.
    pub fn cluster(&self) -> &Cluster {
        self.node().cluster()
    }

    /// The task queue. Jobs that it enqueues carry the id of this request, the trace in its header `traceparent`, and, within an
    /// attempt of a task, the trace and the meta of that job; there their ids are made of that of the job, so that a further attempt
    /// finds them instead of enqueuing them again.
    pub fn tasks(&self) -> Tasks {
        let mut origin = match self.attempt() {
            Some(attempt) => attempt.origin.clone(),
            None => {
                let trace = self.0.caller.headers.get("traceparent").and_then(|value| value.to_str().ok());
                let traceparent = trace.filter(|trace| is_traceparent(trace)).map(Arc::from);
                JobOrigin { traceparent, ..JobOrigin::default() }
            }
        };
        origin.request = Some(self.id().to_string().into());
        self.node().tasks().of_origin(origin).of_attempt(self.attempt())
    }

    /// The addresses that the node listens on, by the names of its transports.
    pub(crate) fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.0.host.addresses()
    }

    /// The path by which an action shows something that has an id: see [`CallHost::path_with_id`].
    pub(crate) fn path_with_id(&self, action: (&str, Option<u32>), id: &str) -> Option<String> {
        self.0.host.path_with_id(action, id)
    }

    /// The limits of the application.
    pub(crate) fn rate_limits(&self) -> &RateLimits {
        self.0.host.rate_limits()
    }

    /// The attempt of a task that this call is, or is a part of.
    pub(crate) fn attempt(&self) -> Option<&Arc<AttemptFacts>> {
        self.0.attempt.as_ref()
    }

    /// The node's settings.
    pub fn config(&self) -> &Config {
        self.node().config()
    }

    /// The node that runs the call.
    pub fn node(&self) -> &Node {
        self.0.host.node()
    }

    /// Completes when the node begins to drain. An answer without an end, such as a stream of events, should then come to
    /// one; a [`Body::stream`](crate::Body::stream) is ended soon after. Cancel-safe.
    pub async fn stopping(&self) {
        self.node().stopping().await;
    }

    /// Calls an action within this call.
    pub(crate) async fn call_action(&self, action: (&str, Option<u32>), params: Params) -> Outcome {
        if self.0.depth >= Self::MAX_DEPTH {
            return Err(ActionError::internal("actions call each other too deeply"));
        }
        self.0.host.clone().call_nested(action, self, params).await
    }

    /// The context of a call that this one makes.
    pub(crate) fn nested(
        &self,
        ((name, version), gate): ((&'static str, u32), Option<Arc<dyn CallGate>>),
        head: Params,
        started: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(started));
        Self(Arc::new(CallFacts {
            host: self.0.host.clone(),
            name,
            version,
            caller: self.0.caller.clone(),
            id: self.0.id.clone(),
            uri: None,
            head,
            clock: CallClock::new(started, limit),
            raw_body: OnceLock::new(),
            answering: AtomicU32::new(version),
            depth: self.0.depth + 1,
            attempt: self.0.attempt.clone(),
            gate,
            outermost: Some(self.outermost().clone()),
            slots: CallSlots::default(),
            answer_head: HeadState::default(),
        }))
    }

    /// The context of the version that takes a call over, because its body names it.
    pub(crate) fn of_version(&self, version: u32, gate: Option<Arc<dyn CallGate>>) -> Self {
        let facts = &*self.0;
        Self(Arc::new(CallFacts {
            host: facts.host.clone(),
            name: facts.name,
            version,
            caller: facts.caller.clone(),
            id: facts.id.clone(),
            uri: facts.uri.clone(),
            head: facts.head.clone(),
            clock: facts.clock.fork(),
            raw_body: facts.raw_body.clone(),
            answering: AtomicU32::new(version),
            depth: facts.depth,
            attempt: facts.attempt.clone(),
            gate,
            outermost: Some(self.outermost().clone()),
            slots: CallSlots::default(),
            answer_head: HeadState::default(),
        }))
    }

    /// Whether the caller is shown the cause of an `internal` error.
    pub(crate) fn shows_causes(&self) -> bool {
        self.0.caller.shows_causes
    }

    /// The gate that the call passes beside the guards of its action.
    pub(crate) fn gate(&self) -> Option<&Arc<dyn CallGate>> {
        self.0.gate.as_ref()
    }

    /// The caller, for what outlives a borrow of the context.
    pub(crate) fn shared_caller(&self) -> &Arc<Caller> {
        &self.0.caller
    }

    /// The call around all others: the one that a transport made.
    pub(crate) fn outermost(&self) -> &Self {
        self.0.outermost.as_ref().unwrap_or(self)
    }

    /// The value of that type that the parts of the outermost call share.
    pub(crate) fn slot<T: Default + Send + Sync + 'static>(&self) -> &T {
        self.outermost().0.slots.get()
    }

    /// Sets the cookie of the session, which no cache may keep with the answer.
    ///
    /// # Errors
    ///
    /// `conflict` with the code `response_started` once the answer has begun.
    pub(crate) fn stage_session_cookie(&self, cookie: Cookie) -> Result<(), ActionError> {
        let is_secure = self.node().has_secure_cookies();
        Ok(self.stage(|head| head.set_session_cookie(cookie, is_secure))??)
    }

    /// Keeps shared caches from the answer to the outermost call: it may depend on the session.
    pub(crate) fn keep_from_shared_caches(&self) {
        if self.outermost().caller().transport == Origin::Http {
            let _ = self.stage(StagedHead::keep_from_shared_caches); // an answer that has begun has its head
        }
    }

    /// Checks that the head of the answer can still be changed.
    ///
    /// # Errors
    ///
    /// `conflict` with the code `response_started` once the answer has begun.
    pub(crate) fn check_head_is_open(&self) -> Result<(), ActionError> {
        self.stage(|_| ())
    }

    /// Changes the head of the answer to the outermost call.
    ///
    /// # Errors
    ///
    /// `conflict` with the code `response_started` once the answer has begun.
    pub(crate) fn stage<R>(&self, change: impl FnOnce(&mut StagedHead) -> R) -> Result<R, ActionError> {
        let call = &self.outermost().0;
        call.answer_head.stage(&call.slots, change)
    }

    /// Takes everything that was added to the head of the answer to this call; nothing can be added from here on. For a
    /// transport that answers without an outcome of the call.
    pub(crate) fn take_head(&self) -> Option<StagedHead> {
        self.0.answer_head.take(&self.0.slots)
    }

    /// Keeps the bytes of the body, which is read once.
    pub(crate) fn set_raw_body(&self, raw: Bytes) {
        self.0.raw_body.get_or_init(|| raw);
    }

    pub(crate) fn raw_body(&self) -> Option<&Bytes> {
        self.0.raw_body.get()
    }

    /// Notes that another version answers than the called one, in the time that this one may take.
    pub(crate) fn set_answering(&self, version: u32, limit: Option<Duration>) {
        self.0.answering.store(version, Relaxed);
        self.0.clock.set_limit(limit);
    }

    /// The version that answers.
    pub(crate) fn answering(&self) -> u32 {
        self.0.answering.load(Relaxed)
    }

    pub(crate) fn clock(&self) -> &CallClock {
        &self.0.clock
    }

    /// How long the call's body was awaited.
    pub(crate) fn waited(&self) -> Duration {
        self.0.clock.waited()
    }

    pub(crate) fn is_nested(&self) -> bool {
        self.0.depth > 0
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.0.name)
            .field("id", &self.0.id)
            .field("caller", &self.0.caller)
            .finish_non_exhaustive()
    }
}

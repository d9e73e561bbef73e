//! A client before its upgrade.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Uri};
use serde_json::Value;

use crate::caller::Caller;
use crate::connection::Attributes;
use crate::context::Context;
use crate::cookie::Cookies;
use crate::error::ActionError;
use crate::id::{ConnectionId, RequestId};
use crate::params::Params;

/// A client before its upgrade: what it sent, and what its connection will be. Cheap to clone.
///
/// Changes count until the hooks have decided; later ones have no effect.
///
/// ```
/// use phalanx_core::hooks::Connecting;
/// use phalanx_core::{ActionError, Context};
///
/// /// Lets in who has a ticket, and remembers it.
/// async fn tickets(_ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
///     let ticket = connecting.query().get_str("ticket").ok_or_else(|| ActionError::unauthenticated("no ticket"))?;
///     connecting.tag(format!("ticket:{ticket}"));
///     connecting.set("ticket", ticket.to_string()).map(drop)
/// }
/// ```
#[derive(Clone)]
pub struct Connecting {
    context: Context,
    remote: SocketAddr,
    decision: Arc<Mutex<ConnectDecision>>,
}

/// A request for a connection, as a transport hands it to the hooks.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The path and the query.
    pub uri: Uri,
    /// The params of the query.
    pub query: Params,
    /// The client, by [`Caller::upgrade`].
    pub caller: Arc<Caller>,
    /// Its address.
    pub remote: SocketAddr,
    /// Its name in logs.
    pub id: RequestId,
}

/// The decision of the hooks about a connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectDecision {
    /// Its attributes.
    pub attributes: Attributes,
    /// Its tags.
    pub tags: Vec<String>,
    /// An id of the application's own.
    pub id: Option<ConnectionId>,
}

impl ConnectDecision {
    /// A connection about which nothing was decided yet.
    pub(crate) const fn new(attributes: Attributes) -> Self {
        Self { attributes, tags: Vec::new(), id: None }
    }
}

impl Connecting {
    pub(crate) fn new(context: Context, remote: SocketAddr, attributes: Attributes) -> Self {
        Self { context, remote, decision: Arc::new(Mutex::new(ConnectDecision::new(attributes))) }
    }

    /// The headers of the upgrade request.
    pub fn headers(&self) -> &HeaderMap {
        self.context.head().headers
    }

    /// Its cookies.
    pub fn cookies(&self) -> Cookies<'_> {
        self.context.cookies()
    }

    /// Its query.
    pub fn query(&self) -> &Params {
        self.context.head().params
    }

    /// The client's address; behind trusted proxies the one that they forward.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Ties the calls and sockets of one browser together; proves nothing about a person.
    pub fn fingerprint(&self) -> &str {
        &self.context.caller().fingerprint
    }

    /// An attribute that a hook has set.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.decision().attributes.get(key).cloned()
    }

    /// Sets an attribute of the connection and returns the one it replaces; `null` removes it.
    ///
    /// # Errors
    ///
    /// `payload_too_large` beyond `websocket.max_attributes`.
    pub fn set(&self, key: impl Into<String>, value: impl Into<Value>) -> Result<Option<Value>, ActionError> {
        self.decision().attributes.set(key, value)
    }

    /// Gives the connection a tag, as [`Connection::tag`](crate::Connection::tag) does: it stands before the upgrade is
    /// answered, and the upgrade is refused with the error of one that cannot.
    pub fn tag(&self, tag: impl Into<String>) {
        self.decision().tags.push(tag.into());
    }

    /// Gives the connection an id of the application's own; a call to such a connection goes to every node. The server's, `"0"`,
    /// and ids in the form of a node's own are refused as `invalid_input`.
    pub fn set_id(&self, id: ConnectionId) {
        self.decision().id = Some(id);
    }

    /// Takes the decision, and leaves one that has no effect.
    pub(crate) fn decide(&self) -> ConnectDecision {
        std::mem::replace(&mut *self.decision(), ConnectDecision::new(Attributes::limited(0)))
    }

    fn decision(&self) -> MutexGuard<'_, ConnectDecision> {
        self.decision.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the values of headers, which may be credentials.
impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Connecting");
        shown.field("caller", self.context.caller()).field("decision", &*self.decision()).finish_non_exhaustive()
    }
}

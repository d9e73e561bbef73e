//! Sessions: what the server knows about one client, from sign-in to sign-out.
//!
//! The client has a random id in a cookie. The backend has the value under the hash of that id, so that it is the same on every
//! node, and ends everywhere at once.

mod cookie;
pub(crate) mod data;
mod ended;
mod fields;
pub(crate) mod handle;
mod id;
mod looks;
mod metrics;
pub(crate) mod parts;
mod slot;
mod sockets;
mod turns;
mod write;

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::backend::{SessionKey, UserKey};
use crate::context::Context;
use crate::error::ActionError;
use crate::guard::{FromContext, Requirements};
use crate::origin::Origin;

use data::{SessionData, SessionType};
use slot::{CallSession, LoadedSession};

/// The session of a call, as a parameter of an action or of a guard. Over HTTP it is that of the request's cookie, over a socket
/// that of its upgrade. Calls within the call share it.
///
/// It is read once in a call, when it is first needed. Writes are done when they return: nothing is saved at the end of a
/// call, and an error after a write does not undo it.
///
/// ```
/// use phalanx_core::serde::{Deserialize, Serialize};
/// use phalanx_core::{ActionError, Session, SessionData};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// # #[serde(crate = "phalanx_core::serde")]
/// struct Account {
///     user: String,
///     visits: u32,
/// }
///
/// impl SessionData for Account {
///     fn user(&self) -> Option<&str> {
///         Some(&self.user)
///     }
/// }
///
/// /// The body of an action that signs a user in whose password was checked.
/// async fn sign_in(session: Session<Account>, user: String) -> Result<(), ActionError> {
///     session.start(Account { user, visits: 0 }).await
/// }
///
/// /// The body of one that counts visits.
/// async fn visit(session: Session<Account>) -> Result<u32, ActionError> {
///     let account = session.update(|account| account.visits += 1).await?;
///     Ok(account.visits)
/// }
/// ```
pub struct Session<T> {
    ctx: Context,
    data: PhantomData<fn() -> T>,
}

impl<T: SessionData> Session<T> {
    /// The value, as the call knows it; `None` without a session. An id that is unknown, malformed or expired is none, and so is
    /// a value that does not decode as `T`.
    pub fn get(&self) -> Option<Arc<T>> {
        let value = self.slot().state().current.as_ref()?.value.clone();
        value.downcast().ok()
    }

    /// Signs in: stores the value under a new id, whatever was there before, and sets the cookie. The session lasts for
    /// `session.absolute` from now on.
    ///
    /// Under the id before, the value before is left for 10 s, for requests that are on their way; they can neither read the new
    /// value nor change it.
    ///
    /// # Errors
    ///
    /// `forbidden` with the code `session_needs_http` over a socket; `conflict` with the code `response_started` once the answer
    /// has begun; `rate_limited` beyond `session.new_per_second` of the client's address; `payload_too_large` with the code
    /// `session_too_large`; `unavailable` if the backend does not answer: then the cookie is as it was.
    pub async fn start(&self, value: T) -> Result<(), ActionError> {
        self.write_start(value).await
    }

    /// Replaces the value. Without a session it creates one; if the user changes, it gives the session a new id.
    ///
    /// # Errors
    ///
    /// `unauthenticated` with the code `session_ended` if the session has ended meanwhile; the errors of [`start`](Self::start);
    /// `conflict` with the code `session_renewed` if the user changes and another request has given the session a new id.
    pub async fn set(&self, value: T) -> Result<(), ActionError> {
        self.write_set(value).await
    }

    /// Changes the value, and returns the new one. If another request changes it at the same time, `change` runs again on the
    /// value of that one. Fields of the stored value that `T` does not know are kept.
    ///
    /// # Errors
    ///
    /// `unauthenticated` without a session; `conflict` if others changed it 20 times meanwhile; the errors of [`set`](Self::set).
    pub async fn update(&self, change: impl Fn(&mut T) + Send) -> Result<Arc<T>, ActionError> {
        self.write_update(change).await
    }

    /// Gives the session a new id, and leaves its value and its end: for changes of privilege that change no user.
    ///
    /// # Errors
    ///
    /// `unauthenticated` without a session, and the errors of [`set`](Self::set).
    pub async fn renew(&self) -> Result<(), ActionError> {
        self.write_renew().await
    }

    /// Signs out: ends the session on every node, and deletes the cookie if the caller is an HTTP client. Without a session it
    /// does nothing.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer: whether the session has ended is unknown, and the cookie is as it was.
    pub async fn end(&self) -> Result<(), ActionError> {
        self.write_end().await
    }

    /// Sets whether the browser keeps the cookie of a sign-in when it closes; it does unless this says otherwise. Counts for
    /// what the call does afterwards.
    pub fn remember(&self, is_remembered: bool) {
        self.slot().state().is_remembered = Some(is_remembered);
    }

    fn typed(&self, value: &Arc<dyn Any + Send + Sync>) -> Result<Arc<T>, ActionError> {
        value.clone().downcast().map_err(|_| ActionError::internal(OtherSession(type_name::<T>())))
    }
}

impl<T: SessionData> FromContext for Session<T> {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let registered =
            ctx.node().session_parts().session_type.filter(|registered| registered.id == TypeId::of::<T>());
        let session_type = registered.ok_or_else(|| ActionError::internal(OtherSession(type_name::<T>())))?;
        ctx.load_session(session_type).await?;
        Ok(Self { ctx: ctx.clone(), data: PhantomData })
    }

    fn require(requirements: &mut Requirements) {
        requirements.session::<T>();
    }
}

impl Context {
    /// The session that the outermost call names.
    pub(crate) fn sent_session(&self) -> Option<SessionKey> {
        let caller = self.outermost().caller();
        match (&caller.connection, caller.transport) {
            (Some(connection), _) => connection.session().map(|session| session.key),
            // An upgrade has the headers of its request, and no connection yet.
            (None, Origin::Http | Origin::Websocket) => {
                self.node().session_parts().sent(&caller.headers, caller.counts_cookie)
            }
            (None, Origin::Internal) => None,
        }
    }

    /// The session and its user, for what counts by them; nothing is read if the application has no sessions.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub(crate) async fn known_session(&self) -> Result<Option<(SessionKey, Option<UserKey>)>, ActionError> {
        let Some(session_type) = self.node().session_parts().session_type else { return Ok(None) };
        self.load_session(session_type).await?;
        Ok(self.session_slot().state().current.as_ref().map(|current| (current.key, current.user)))
    }

    /// Reads the session that the request names, once in a call.
    async fn load_session(&self, session_type: SessionType) -> Result<(), ActionError> {
        self.keep_from_shared_caches();
        let (slot, parts) = (self.session_slot(), self.node().session_parts());
        let load = async || {
            let Some(key) = self.sent_session() else { return Ok(()) };
            slot.state().key = Some(key);
            let Some(stored) = parts.read(key).await? else { return Ok(()) };
            match (session_type.decode)(&stored.value) {
                Some(value) => slot.state().current = Some(LoadedSession::new(key, stored, value)),
                None => parts.report_undecodable(key),
            }
            Ok(())
        };
        slot.loaded.get_or_try_init(load).await.map(drop)
    }

    /// The value of that type that the parts of the outermost call share.
    fn session_slot(&self) -> &CallSession {
        self.slot()
    }
}

impl<T> Clone for Session<T> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), data: PhantomData }
    }
}

impl<T> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.ctx.session_slot().state().key).finish()
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is not the type of the application's sessions: add it by `App::session`, and name it in `require` of the guard"
)]
struct OtherSession(&'static str);

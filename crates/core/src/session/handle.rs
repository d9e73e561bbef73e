//! The sessions of users, as an author asks for them.

use std::fmt;
use std::sync::Arc;

use super::parts::{SessionParts, no_session, session_ended};
use super::slot::CallSession;
use super::sockets;
use crate::backend::{SessionKey, UserKey};
use crate::context::Context;
use crate::error::ActionError;
use crate::node::Node;

/// The sessions of an application. Cheap to clone.
///
/// ```
/// use phalanx_core::{ActionError, Context};
///
/// /// The body of an action by which a user who changed the password signs out everywhere else.
/// async fn leave_other_devices(ctx: Context) -> Result<usize, ActionError> {
///     ctx.sessions().end_others().await
/// }
/// ```
#[derive(Clone)]
pub struct Sessions {
    parts: Arc<SessionParts>,
    /// The call that asks.
    call: Option<Context>,
}

/// A session in the list of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserSession {
    /// Unix time in milliseconds of its sign-in.
    pub created_at: u64,
    /// Unix time in milliseconds at which it ends, however much it is used.
    pub ends_at: u64,
    /// Whether it is that of the call.
    pub is_current: bool,
}

impl Sessions {
    /// The sessions of a user, at most [`MAX_SESSIONS_OF_USER`](crate::backend::MAX_SESSIONS_OF_USER): the one that ends first
    /// at the beginning.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn of(&self, user: &str) -> Result<Vec<UserSession>, ActionError> {
        let own = self.own_key().await?;
        let listed = self.parts.store.list(UserKey::of(user)).await?;
        let shown = listed.into_iter().map(|session| UserSession {
            created_at: session.created_at,
            ends_at: session.ends_at,
            is_current: own == Some(session.key),
        });
        Ok(shown.collect())
    }

    /// Ends all sessions of a user, on every node, that of the call too if it is theirs. Returns how many there were.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn end_all(&self, user: &str) -> Result<usize, ActionError> {
        let _ending = self.parts.begin_end(self.call.as_ref());
        let ended = self.parts.store.end_all(UserKey::of(user)).await?;
        self.parts.record_ended(&ended);
        if let Some(call) = &self.call {
            sockets::forget(call, &ended);
        }
        let count = ended.len();
        self.parts.close_ended(ended, self.call.as_ref());
        Ok(count)
    }

    /// Ends all other sessions of the user of this call's. Returns how many there were.
    ///
    /// # Errors
    ///
    /// `unauthenticated` if the call has no session; `unavailable` if the backend does not answer.
    pub async fn end_others(&self) -> Result<usize, ActionError> {
        let own = self.own_key().await?.ok_or_else(no_session)?;
        let ended = self.parts.store.end_others(own).await?.ok_or_else(session_ended)?;
        self.parts.record_ended(&ended);
        let count = ended.len();
        self.parts.close_ended(ended, None);
        Ok(count)
    }

    /// The key of the call's session. One that it names counts only if it is there.
    async fn own_key(&self) -> Result<Option<SessionKey>, ActionError> {
        let Some(call) = &self.call else { return Ok(None) };
        let slot = call.slot::<CallSession>();
        if slot.loaded.initialized() {
            return Ok(slot.current().map(|current| current.key));
        }
        call.keep_from_shared_caches();
        let Some(key) = call.sent_session() else { return Ok(None) };
        Ok(self.parts.read(key).await?.map(|_| key))
    }
}

impl Node {
    /// The sessions of users.
    pub fn sessions(&self) -> Sessions {
        Sessions { parts: self.session_parts().clone(), call: None }
    }
}

impl Context {
    /// The sessions of users, and that of this call.
    pub fn sessions(&self) -> Sessions {
        Sessions { parts: self.node().session_parts().clone(), call: Some(self.clone()) }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

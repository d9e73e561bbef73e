//! Writes of a call's session. Each is done when it returns.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::data::SessionData;
use super::id::SessionId;
use super::parts::{SessionParts, no_session, session_ended};
use super::slot::{CallSession, LoadedSession};
use super::{Session, fields, metrics};
use crate::backend::{
    BackendError, NewSession, SessionRenewal, SessionRenewalOutcome, SessionWrite, SessionWriteOutcome, StoredSession,
    UserKey,
};
use crate::call::head::StagedHead;
use crate::context::Context;
use crate::error::{ActionError, ErrorKind};
use crate::origin::Origin;

/// Most attempts of one update: each loses against a write of another node.
const TRIES: u32 = 20;

/// A value that is to be stored, encoded.
#[derive(Clone)]
struct NewValue {
    bytes: Bytes,
    value: Arc<dyn Any + Send + Sync>,
    user: Option<UserKey>,
}

impl NewValue {
    fn new<T: SessionData>(bytes: Bytes, value: Arc<T>) -> Self {
        Self { bytes, user: value.user().map(UserKey::of), value }
    }

    /// A value that replaces the one that is stored.
    fn encoded<T: SessionData>(value: T) -> Result<Self, ActionError> {
        Ok(Self::new(fields::encode(&value)?, Arc::new(value)))
    }
}

/// The effects of a renewal beside the new id.
struct Renewing {
    /// The new value; `None` leaves the one that is stored.
    value: Option<NewValue>,
    /// The version that it was made from.
    expected: Option<u64>,
    /// Whether it is a sign-in, from which the lifetime counts.
    is_sign_in: bool,
}

/// The place in the answer for the cookie of a session that is being stored.
struct CookiePlace<'a>(&'a Context);

impl Drop for CookiePlace<'_> {
    fn drop(&mut self) {
        let _ = self.0.stage(StagedHead::release); // an answer that has begun has none
    }
}

enum Renewed {
    Done,
    Conflict(StoredSession),
    Frozen,
    Gone,
}

impl<T: SessionData> Session<T> {
    pub(super) async fn write_start(&self, value: T) -> Result<(), ActionError> {
        let value = NewValue::encoded(value)?;
        self.check_cookie()?;
        let _writing = self.slot().writing.lock().await;
        let Some(current) = self.slot().current().filter(|current| !current.is_frozen) else {
            return self.create(value).await;
        };
        match self
            .give_new_id(&current, Renewing { value: Some(value.clone()), expected: None, is_sign_in: true })
            .await?
        {
            Renewed::Done => Ok(()),
            // The sign-in needs nothing of the session that was ended or renewed meanwhile.
            Renewed::Frozen | Renewed::Gone | Renewed::Conflict(_) => self.create(value).await,
        }
    }

    pub(super) async fn write_set(&self, value: T) -> Result<(), ActionError> {
        let value = NewValue::encoded(value)?;
        let _writing = self.slot().writing.lock().await;
        let Some(current) = self.slot().current() else {
            // Swallowed errors and second writes bring nothing back that was ended meanwhile.
            if self.slot().state().was_ended {
                return Err(session_ended());
            }
            self.check_cookie()?;
            return self.create(value).await;
        };
        match self.replace(&current, value, None).await? {
            Some(_) => Err(conflict()),
            None => Ok(()),
        }
    }

    pub(super) async fn write_update(&self, change: impl Fn(&mut T) + Send) -> Result<Arc<T>, ActionError> {
        let _writing = self.slot().writing.lock().await;
        let mut current = self.slot().current().ok_or_else(no_session)?;
        // Updates of this node come one after the other, so that only nodes contend.
        let _turn = self.parts().turns.take(current.key).await;
        for _ in 0..TRIES {
            let old = self.typed(&current.value)?;
            let mut value = T::clone(&old);
            change(&mut value);
            let bytes = fields::encode_over::<T>(&current.bytes, &old, &value)?;
            let value = Arc::new(value);
            let new = NewValue::new(bytes, value.clone());
            let Some(stored) = self.replace(&current, new, Some(current.version)).await? else { return Ok(value) };
            current = match fields::decode::<T>(&stored.value) {
                Ok(value) => LoadedSession::new(current.key, stored, Arc::new(value)),
                Err(_) => {
                    self.parts().report_undecodable(current.key);
                    return Err(no_session());
                }
            };
        }
        Err(conflict())
    }

    pub(super) async fn write_renew(&self) -> Result<(), ActionError> {
        self.check_cookie()?;
        let _writing = self.slot().writing.lock().await;
        let current = self.slot().current().ok_or_else(no_session)?;
        let renewing = Renewing { value: None, expected: None, is_sign_in: false };
        self.give_new_id(&current, renewing).await?.into_result().map(drop)
    }

    pub(super) async fn write_end(&self) -> Result<(), ActionError> {
        let slot = self.slot();
        let _writing = slot.writing.lock().await;
        let (key, is_loaded, has_set_cookie) = {
            let state = slot.state();
            let loaded = state.current.as_ref().map(|current| current.key);
            (loaded.or(state.key), loaded.is_some(), state.has_set_cookie)
        };
        if let Some(key) = key {
            let _ending = self.parts().begin_end(Some(&self.ctx));
            let ended = self.parts().store.end(key).await;
            // Also where it is unknown. One that this client does not have is not: anybody could fill the memory.
            if is_loaded && !matches!(ended, Err(BackendError::Refused(_))) {
                self.parts().remember_end(&[key]);
            }
            let mut ended = ended?;
            self.parts().record_ended(&ended);
            if !ended.contains(&key) {
                ended.push(key); // it may have expired, and its sockets not be closed yet
            }
            self.parts().close_ended(ended, Some(&self.ctx));
        }
        slot.state().current = None;
        let caller = self.ctx.outermost().caller();
        let is_by_cookie = || self.parts().cookie.is_credential(&caller.headers, caller.counts_cookie);
        if caller.transport == Origin::Http && (has_set_cookie || is_by_cookie()) {
            // Once the answer has begun, the client keeps the id of a session that is no more.
            let _ = self.ctx.stage_session_cookie(self.parts().cookie.removal());
        }
        Ok(())
    }

    /// Replaces the value of a session, and gives it a new id if the user changes. Returns the version that is stored if that
    /// is another one than expected.
    async fn replace(
        &self,
        current: &LoadedSession,
        value: NewValue,
        expected: Option<u64>,
    ) -> Result<Option<StoredSession>, ActionError> {
        if value.user != current.user {
            self.check_cookie()?;
            let renewing = Renewing { value: Some(value), expected, is_sign_in: false };
            return self.give_new_id(current, renewing).await?.into_result();
        }
        let write = SessionWrite { value: value.bytes.clone(), expected };
        match self.parts().store.write(current.key, write).await? {
            SessionWriteOutcome::Written(version) => {
                let NewValue { bytes, value, user } = value;
                let written = LoadedSession { version, bytes, value, user, ..current.clone() };
                self.slot().state().current = Some(written);
                Ok(None)
            }
            SessionWriteOutcome::Conflict(stored) => Ok(Some(stored)),
            SessionWriteOutcome::Gone => {
                self.slot().lose();
                Err(session_ended())
            }
        }
    }

    /// Stores a session under a new id, and sends its id to the client.
    async fn create(&self, value: NewValue) -> Result<(), ActionError> {
        let id = SessionId::random();
        let _place = self.reserve_cookie(&id)?;
        self.parts().count_new(self.ctx.outermost().caller().remote)?;
        let SessionParts { store, settings, .. } = self.parts();
        let is_remembered = self.slot().state().is_remembered.unwrap_or(true);
        let new = NewSession {
            key: id.key(),
            user: value.user,
            value: value.bytes.clone(),
            is_remembered,
            idle: settings.idle,
            absolute: settings.absolute,
        };
        let created = store.create(new).await?;
        metrics::record_created();
        self.parts().record_ended(&created.ended);
        self.hand_over(&id, (created.ends_at, is_remembered), value).await?;
        self.parts().close_replaced(None, created.ended);
        Ok(())
    }

    async fn give_new_id(&self, current: &LoadedSession, renewing: Renewing) -> Result<Renewed, ActionError> {
        let id = SessionId::random();
        // Before the store writes: the session that there is must not end for one whose id the client does not get.
        let _place = self.reserve_cookie(&id)?;
        self.parts().count_new(self.ctx.outermost().caller().remote)?;
        let Renewing { value, expected, is_sign_in } = renewing;
        let SessionParts { store, settings, .. } = self.parts();
        let is_remembered = self.slot().state().is_remembered;
        let renewal = SessionRenewal {
            key: id.key(),
            value: value.as_ref().map(|value| (value.bytes.clone(), value.user)),
            expected,
            is_remembered: if is_sign_in { Some(is_remembered.unwrap_or(true)) } else { is_remembered },
            idle: settings.idle,
            absolute: is_sign_in.then_some(settings.absolute),
        };
        Ok(match store.renew(current.key, renewal).await? {
            SessionRenewalOutcome::Renewed(renewed, is_remembered) => {
                metrics::record_renewed();
                self.parts().remember_end(&[current.key]);
                self.parts().record_ended(&renewed.ended);
                let value = value.unwrap_or_else(|| NewValue {
                    bytes: current.bytes.clone(),
                    value: current.value.clone(),
                    user: current.user,
                });
                self.hand_over(&id, (renewed.ends_at, is_remembered), value).await?;
                self.parts().close_replaced(Some(current.key), renewed.ended);
                Renewed::Done
            }
            SessionRenewalOutcome::Conflict(stored) => Renewed::Conflict(stored),
            SessionRenewalOutcome::Frozen => Renewed::Frozen,
            SessionRenewalOutcome::Gone => {
                self.slot().lose();
                Renewed::Gone
            }
        })
    }

    /// Sets the cookie of a session that is stored, and makes it that of the call. If the answer has begun, the
    /// session ends again: no client has its id.
    async fn hand_over(
        &self,
        id: &SessionId,
        (ends_at, is_remembered): (u64, bool),
        value: NewValue,
    ) -> Result<(), ActionError> {
        let left = Duration::from_millis(ends_at.saturating_sub(self.parts().clock.now_ms()));
        let cookie = self.parts().cookie.with(id, is_remembered.then_some(left));
        if let Err(refused) = self.ctx.stage_session_cookie(cookie) {
            self.slot().lose();
            // With it the session that it was renewed from, whose sockets are closed.
            let ended = self.parts().store.end(id.key()).await?;
            self.parts().record_ended(&ended);
            self.parts().close_replaced(None, ended);
            return Err(refused);
        }
        let NewValue { bytes, value, user } = value;
        let mut state = self.slot().state();
        (state.has_set_cookie, state.was_ended) = (true, false);
        state.key = Some(id.key());
        state.current = Some(LoadedSession { key: id.key(), version: 1, user, is_frozen: false, bytes, value });
        Ok(())
    }

    /// Keeps a place for the cookie with an id until the place is dropped.
    ///
    /// # Errors
    ///
    /// `conflict` with the code `response_started` once the answer has begun, `internal` if it has too many cookies.
    fn reserve_cookie(&self, id: &SessionId) -> Result<CookiePlace<'_>, ActionError> {
        let (cookie, is_secure) = (self.parts().cookie.longest(id), self.ctx.node().has_secure_cookies());
        self.ctx.stage(|head| head.reserve(cookie, is_secure))??;
        Ok(CookiePlace(&self.ctx))
    }

    /// Refuses what needs a cookie, if the caller cannot be given one.
    fn check_cookie(&self) -> Result<(), ActionError> {
        if self.ctx.outermost().caller().transport != Origin::Http {
            metrics::record_refusal("needs_http");
            let message = "a session begins, and gets a new id, over HTTP: a socket cannot be given a cookie";
            return Err(ActionError::new(ErrorKind::Forbidden, "session_needs_http", message));
        }
        self.ctx.check_head_is_open()
    }

    pub(super) fn slot(&self) -> &CallSession {
        self.ctx.slot()
    }

    pub(super) fn parts(&self) -> &SessionParts {
        self.ctx.node().session_parts()
    }
}

impl Renewed {
    fn into_result(self) -> Result<Option<StoredSession>, ActionError> {
        match self {
            Self::Done => Ok(None),
            Self::Conflict(stored) => Ok(Some(stored)),
            Self::Gone => Err(session_ended()),
            Self::Frozen => {
                metrics::record_refusal("renewed");
                let message = "another request has given the session a new id: try again";
                Err(ActionError::new(ErrorKind::Conflict, "session_renewed", message))
            }
        }
    }
}

fn conflict() -> ActionError {
    metrics::record_refusal("conflict");
    ActionError::of(ErrorKind::Conflict, "the session is being changed by many others: try again")
}

//! The hooks of an application.

use std::future::Future;

use phalanx_core::hooks::{
    Connecting, Delivering, Delivery, JobDraft, Joining, Leaving, LeftRoom, Publishing, RoomMessage,
};
use phalanx_core::protocol::CloseReason;
use phalanx_core::{ActionError, Connection, Context};

use super::App;

/// Hooks: functions that run when a connection, a room, a message or a job comes and goes. See [`hooks`](crate::hooks).
impl App {
    /// Runs `hook` before an upgrade is answered: it may refuse, set attributes and tags, or give an id. See
    /// [`before_connect`](crate::hooks::Hooks::before_connect).
    ///
    /// ```
    /// use phalanx::prelude::*;
    ///
    /// struct SignedIn(String);
    ///
    /// impl FromContext for SignedIn {
    ///     async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
    ///         let user = ctx.cookies().get("user").map(str::to_owned);
    ///         user.map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    ///     }
    /// }
    ///
    /// async fn signed_in(ctx: Context, connecting: Connecting) -> Result<(), ActionError> {
    ///     let me: SignedIn = ctx.guard().await?;
    ///     connecting.set("user", me.0).map(drop)
    /// }
    ///
    /// App::new("chat").before_connect(signed_in);
    /// ```
    pub fn before_connect<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Context, Connecting) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.definitions.hooks.before_connect(hook);
        self
    }

    /// Runs `hook` after a connection was registered. See [`after_connect`](crate::hooks::Hooks::after_connect).
    pub fn after_connect<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Context, Connection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.definitions.hooks.after_connect(hook);
        self
    }

    /// Runs `hook` after a connection has ended and left its rooms. See
    /// [`after_disconnect`](crate::hooks::Hooks::after_disconnect).
    pub fn after_disconnect<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Context, Connection, CloseReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.definitions.hooks.after_disconnect(hook);
        self
    }

    /// Runs `hook` before a connection joins a room, which it may refuse. See
    /// [`before_join`](crate::hooks::Hooks::before_join).
    pub fn before_join<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Joining) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.definitions.hooks.before_join(hook);
        self
    }

    /// Runs `hook` before a connection leaves a room that it, or another caller, wants it to leave; it may refuse. See
    /// [`before_leave`](crate::hooks::Hooks::before_leave).
    pub fn before_leave<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Leaving) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.definitions.hooks.before_leave(hook);
        self
    }

    /// Runs `hook` when a connection has left a room, whatever the cause. See
    /// [`after_leave`](crate::hooks::Hooks::after_leave).
    pub fn after_leave<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(LeftRoom) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.definitions.hooks.after_leave(hook);
        self
    }

    /// Runs `hook` once for each message of a room, on the node of its sender: it may refuse, change or drop it. See
    /// [`before_publish`](crate::hooks::Hooks::before_publish).
    pub fn before_publish<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Publishing) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<RoomMessage>, ActionError>> + Send + 'static,
    {
        self.definitions.hooks.before_publish(hook);
        self
    }

    /// Runs `hook` for each recipient of a message: it may change or drop it for that one. It waits for nothing. See
    /// [`before_deliver`](crate::hooks::Hooks::before_deliver).
    pub fn before_deliver(mut self, hook: impl Fn(Delivering<'_>) -> Delivery + Send + Sync + 'static) -> Self {
        self.definitions.hooks.before_deliver(hook);
        self
    }

    /// Runs `hook` before a job is stored that this application enqueues: it may refuse it, or change its queue and meta. See
    /// [`before_enqueue`](crate::hooks::Hooks::before_enqueue).
    pub fn before_enqueue<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Context, JobDraft) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.definitions.hooks.before_enqueue(hook);
        self
    }
}

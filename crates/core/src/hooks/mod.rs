//! Hooks of an application: functions that run when a connection, a room, a message or a job comes and goes.
//!
//! One that runs *before* something may refuse it, and its panic refuses it with `internal`. One that runs *after* something is
//! notified of it; its panic is counted. Hooks of one kind run one after the other, in the order in which they were added.
//!
//! A hook is a function, or a closure that returns a future. It owns its arguments, which are cheap to clone, and has a
//! [`Context`]: guards, state, sessions and calls of actions are there as in an action.

use std::fmt;
use std::future::Future;

use crate::connection::Connection;
use crate::context::Context;
use crate::error::ActionError;
use crate::future::BoxFuture;
use crate::protocol::CloseReason;

mod connecting;
mod lazy;
mod rooms;

pub use connecting::{ConnectDecision, ConnectRequest, Connecting};
pub(crate) use lazy::LazyContext;
pub use rooms::{Delivering, Joining, Leaving, LeftRoom, Publishing};

pub use crate::protocol::RoomMessage;
pub use crate::rooms::{Delivery, LeaveCause};
pub use crate::task::JobDraft;

/// The hooks of an application, as `App` and initializers add them.
///
/// ```
/// use phalanx_core::ActionError;
/// use phalanx_core::hooks::{Joining, Publishing, RoomMessage};
///
/// /// Only members of staff enter `staff`.
/// async fn staff_only(joining: Joining) -> Result<(), ActionError> {
///     if joining.room() != "staff" || joining.connection().get("staff").is_some() {
///         return Ok(());
///     }
///     Err(ActionError::forbidden("staff only"))
/// }
///
/// /// Drops empty messages.
/// async fn no_empty(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
///     let is_empty = publishing.message().read::<String>().is_ok_and(|text| text.is_empty());
///     Ok((!is_empty).then(|| publishing.into_message()))
/// }
///
/// # use phalanx_core::config::Config;
/// # use phalanx_core::{Engine, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// // For an application: `App::before_join(staff_only)`, `App::before_publish(no_empty)`.
/// setup.definitions.hooks.before_join(staff_only);
/// setup.definitions.hooks.before_publish(no_empty);
/// # let engine = Engine::start(setup).await?;
/// # engine.node().rooms().create("staff").await?;
/// # engine.node().rooms().say("staff", "").await?;
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Hooks {
    pub(crate) before_connect: HookList<(Context, Connecting), HookVerdict>,
    pub(crate) after_connect: HookList<(Context, Connection), ()>,
    pub(crate) after_disconnect: HookList<(Context, Connection, CloseReason), ()>,
    pub(crate) before_join: HookList<Joining, HookVerdict>,
    pub(crate) before_leave: HookList<Leaving, HookVerdict>,
    pub(crate) after_leave: HookList<LeftRoom, ()>,
    pub(crate) before_publish: HookList<Publishing, Result<Option<RoomMessage>, ActionError>>,
    pub(crate) before_deliver: Vec<Box<DeliverHook>>,
    pub(crate) before_enqueue: HookList<(Context, JobDraft), HookVerdict>,
}

/// The answer of a hook that may refuse.
type HookVerdict = Result<(), ActionError>;

/// Hooks of one kind, in their order.
pub(crate) type HookList<A, R> = Vec<Box<dyn Fn(A) -> BoxFuture<'static, R> + Send + Sync>>;

/// The hook that runs for each recipient of a message. It waits for nothing, so that it borrows.
pub(crate) type DeliverHook = dyn for<'a> Fn(Delivering<'a>) -> Delivery + Send + Sync;

impl Hooks {
    /// Runs before an upgrade is answered: see [`Connecting`].
    ///
    /// All such hooks of an upgrade have `general.action_deadline` together, or 30 s without that. An error is answered instead
    /// of the upgrade, by its status: `unauthenticated` as 401, `forbidden` as 403.
    pub fn before_connect<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Context, Connecting) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.before_connect.push(Box::new(move |(context, connecting)| Box::pin(hook(context, connecting))));
    }

    /// Runs after a connection was registered: frames that are sent to it from here on follow its welcome. May take as long as
    /// one of [`before_connect`](Self::before_connect).
    pub fn after_connect<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Context, Connection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.after_connect.push(Box::new(move |(context, connection)| Box::pin(hook(context, connection))));
    }

    /// Runs after a connection has ended and left its rooms. May take as long as one of
    /// [`before_connect`](Self::before_connect).
    pub fn after_disconnect<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Context, Connection, CloseReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.after_disconnect
            .push(Box::new(move |(context, connection, reason)| Box::pin(hook(context, connection, reason))));
    }

    /// Runs before a connection joins a room; its client gets the error of a hook that refuses.
    pub fn before_join<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Joining) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.before_join.push(boxed(hook));
    }

    /// Runs before a connection leaves a room because it, or another caller, requested that; the caller gets the error of a
    /// hook that refuses. Until it returns, no other join or leave of that connection proceeds, so the hook must not wait for
    /// one.
    pub fn before_leave<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Leaving) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.before_leave.push(boxed(hook));
    }

    /// Runs when a connection has left a room, whatever the cause, at most for `general.action_deadline`. Until it returns, no
    /// other join or leave of that connection proceeds, so the hook must not wait for one.
    ///
    /// Runs once, also if the call that requested the leave is dropped. After the death of a node it runs on the node that
    /// reaps it; if that one dies meanwhile, up to 200 may run again. So may the hook of a leave that was in progress when its
    /// node died, and of one that ended while its node was cut off from the backend for so long that it was reaped. A connection
    /// that stays on such a node is a member again once the node is back, without another
    /// [`before_join`](Self::before_join), and this hook runs once more when it leaves.
    pub fn after_leave<F, Fut>(&mut self, hook: F)
    where
        F: Fn(LeftRoom) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.after_leave.push(boxed(hook));
    }

    /// Runs once for each message, at its origin: may wait, change the message, or drop it by `None`. Delays its own sender
    /// only, who gets the error of a hook that refuses instead of `OK`.
    pub fn before_publish<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Publishing) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<RoomMessage>, ActionError>> + Send + 'static,
    {
        self.before_publish.push(boxed(hook));
    }

    /// Runs for each recipient of a message on this node. Must not block: it delays the room. It is the only reason to encode a
    /// message more than once: without such a hook members get the bytes that the node received.
    pub fn before_deliver(&mut self, hook: impl Fn(Delivering<'_>) -> Delivery + Send + Sync + 'static) {
        self.before_deliver.push(Box::new(hook));
    }

    /// Runs on the node that enqueues, once for each job, also of [`enqueue_many`](crate::task::Tasks::enqueue_many), after
    /// its input was checked and before it is stored. May wait, and change the queue and the meta of the job; its error is that
    /// of the enqueue, which then stores nothing, of a call with many jobs none of them. That it agrees does not mean that the
    /// job will be stored: its id may be there already, or the backend may refuse.
    ///
    /// Does not run for ticks of periodic tasks, for jobs of other programs, and for a failed job that runs again, which it
    /// has seen. A job that the hook itself enqueues comes to the hook as well, eight deep at most: then
    /// it is refused with the code `hook_recursion`, kind `conflict`. Its context is that of the application itself, under the
    /// id of the request in which the job is enqueued.
    ///
    /// All hooks of one call have `general.action_deadline` together, or 30 s without that.
    ///
    /// ```
    /// use phalanx_core::hooks::{Hooks, JobDraft};
    /// use phalanx_core::{ActionError, Context};
    ///
    /// /// Jobs of tenants on trial wait behind those of others; a tenant that was closed has none.
    /// async fn by_tenant(_ctx: Context, job: JobDraft) -> Result<(), ActionError> {
    ///     match job.meta("tenant").as_deref() {
    ///         Some("closed") => return Err(ActionError::forbidden("the tenant was closed")),
    ///         Some("trial") => job.set_queue("low"),
    ///         _ => {}
    ///     }
    ///     Ok(())
    /// }
    ///
    /// # let mut hooks = Hooks::default();
    /// hooks.before_enqueue(by_tenant); // for an application: `App::before_enqueue(by_tenant)`
    /// ```
    pub fn before_enqueue<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Context, JobDraft) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ActionError>> + Send + 'static,
    {
        self.before_enqueue.push(Box::new(move |(context, job)| Box::pin(hook(context, job))));
    }
}

fn boxed<A, R, F, Fut>(hook: F) -> Box<dyn Fn(A) -> BoxFuture<'static, R> + Send + Sync>
where
    F: Fn(A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
{
    Box::new(move |argument| Box::pin(hook(argument)))
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

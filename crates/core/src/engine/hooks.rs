//! Runs the hooks of an application, and contains their panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, poll};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::caller::Caller;
use crate::config::Config;
use crate::connection::{Attributes, Connection};
use crate::context::{CallHost, Context, NewCall};
use crate::error::{ActionError, ErrorKind, report_panic};
use crate::future::BoxFuture;
use crate::hooks::{
    ConnectDecision, ConnectRequest, Connecting, Delivering, Delivery, HookList, Joining, LazyContext, Leaving,
    LeftRoom, Publishing, RoomMessage,
};
use crate::id::RequestId;
use crate::metrics::bound_reached;
use crate::protocol::CloseReason;
use crate::registry::Registry;
use crate::rooms::{Leaver, RoomCallbacks, RoomPoint};
use crate::shutdown::Shutdown;
use crate::task::JobDraft;
use crate::task::draft::TaskCallbacks;

/// How deep enqueues may be in the hooks of others: a hook that enqueues in any case would call itself until the stack ends.
const MAX_DEPTH: u32 = 8;

tokio::task_local! {
    /// How many enqueues wait for the hook that runs.
    static DEPTH: u32;
}

/// The hooks of an application, with the node that their contexts are of.
pub(super) struct HookRunner {
    registry: Arc<Registry>,
    host: Weak<dyn CallHost>,
    deadline: Duration,
    shutdown: Shutdown,
}

impl HookRunner {
    pub(super) fn new(registry: Arc<Registry>, host: Weak<dyn CallHost>, config: &Config, shutdown: Shutdown) -> Self {
        let deadline = match config.general.action_deadline {
            Duration::ZERO => Duration::from_secs(30),
            limit => limit,
        };
        Self { registry, host, deadline, shutdown }
    }

    /// How long a hook may delay a connection.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The context of the hooks at one point.
    fn lazy(&self, name: &'static str, connection: Option<&Connection>) -> Result<LazyContext, ActionError> {
        Ok(LazyContext::new(super::running(&self.host)?, name, connection.cloned(), self.deadline))
    }

    /// Runs the hooks of one event that can refuse it, at most for the hooks' deadline: an action may have none of its own.
    async fn decide<T>(
        &self,
        name: &'static str,
        hooks: impl Future<Output = Result<T, ActionError>>,
    ) -> Result<T, ActionError> {
        let limit = self.deadline;
        // As in `run_guarded`.
        let ended = catch(async move {
            let mut hooks = pin!(hooks);
            if let Poll::Ready(decided) = poll!(hooks.as_mut()) {
                return decided;
            }
            let late = || ActionError::of(ErrorKind::Timeout, format!("the {name} hooks did not end in time"));
            Box::pin(async { timeout(limit, hooks).await.unwrap_or_else(|_| Err(late())) }).await
        });
        ended.await.flatten()
    }

    /// Runs a hook that cannot refuse, at most for the hooks' deadline. The subject is for people.
    pub(crate) async fn run_guarded(
        &self,
        name: &'static str,
        subject: impl FnOnce() -> String,
        hook: impl Future<Output = ()>,
    ) {
        let limit = self.deadline;
        // A late hook is dropped inside, and its drop may panic too.
        let ended = catch(async move {
            let mut hook = pin!(hook);
            // Most hooks wait for nothing, and need no timer. It is in a box of its own: every leave would have room for it.
            if poll!(hook.as_mut()).is_ready() {
                return Ok(());
            }
            let in_time = async {
                let running = self.shutdown.unfinished(|| format!("hook {name} ({})", subject()));
                let ended = timeout(limit, hook).await;
                running.finish();
                ended
            };
            Box::pin(in_time).await
        });
        if let Ok(Err(_)) = ended.await {
            warn!(name, "a hook did not end in time");
        }
    }

    pub(super) async fn run_connect(
        &self,
        request: ConnectRequest,
        attributes: Attributes,
    ) -> Result<ConnectDecision, ActionError> {
        if self.registry.hooks.before_connect.is_empty() {
            return Ok(ConnectDecision::new(attributes));
        }
        let (limit, ConnectRequest { uri, query, caller, remote, id }) = (self.deadline, request);
        let context = Context::new(NewCall {
            host: super::running(&self.host)?,
            name: "before_connect",
            version: 1,
            caller,
            id,
            uri: Some(uri),
            head: query,
            started: Instant::now(),
            limit: Some(limit),
            attempt: None,
            gate: None,
        });
        let connecting = Connecting::new(context.clone(), remote, attributes);
        let hooks = async {
            for hook in &self.registry.hooks.before_connect {
                catch(async { hook((context.clone(), connecting.clone())).await }).await??;
            }
            Ok(())
        };
        let late = || ActionError::of(ErrorKind::Timeout, "the connection was not decided on in time");
        // As in `run_guarded`.
        catch(async move { timeout(limit, hooks).await }).await?.unwrap_or_else(|_| Err(late()))?;
        Ok(connecting.decide())
    }

    pub(super) async fn run_connected(&self, connection: &Connection) {
        let hooks = &self.registry.hooks.after_connect;
        self.run_after("after_connect", hooks, connection, |context| (context, connection.clone())).await;
    }

    pub(super) async fn run_disconnected(&self, connection: &Connection, reason: CloseReason) {
        let hooks = &self.registry.hooks.after_disconnect;
        self.run_after("after_disconnect", hooks, connection, |context| (context, connection.clone(), reason)).await;
    }

    async fn run_after<A>(
        &self,
        name: &'static str,
        hooks: &HookList<A, ()>,
        connection: &Connection,
        argument: impl Fn(Context) -> A,
    ) {
        if hooks.is_empty() {
            return;
        }
        let Ok(context) = self.lazy(name, Some(connection)) else { return };
        for hook in hooks {
            let subject = || format!("connection {}", connection.id());
            let argument = argument(context.get().clone());
            self.run_guarded(name, subject, async move { hook(argument).await }).await;
        }
    }
}

#[async_trait]
impl RoomCallbacks for HookRunner {
    fn has(&self, point: RoomPoint) -> bool {
        let hooks = &self.registry.hooks;
        !match point {
            RoomPoint::Join => hooks.before_join.is_empty(),
            RoomPoint::Leave => hooks.before_leave.is_empty(),
            RoomPoint::Left => hooks.after_leave.is_empty(),
            RoomPoint::Publish => hooks.before_publish.is_empty(),
            RoomPoint::Deliver => hooks.before_deliver.is_empty(),
        }
    }

    async fn before_join(&self, room: &Arc<str>, connection: &Connection) -> Result<(), ActionError> {
        let joining = Joining::new(self.lazy("before_join", Some(connection))?, room.clone(), connection.clone());
        let hooks = async {
            for hook in &self.registry.hooks.before_join {
                decision("before_join", async { hook(joining.clone()).await }).await?;
            }
            Ok(())
        };
        self.decide("before_join", hooks).await
    }

    async fn before_leave(&self, room: &Arc<str>, connection: &Connection) -> Result<(), ActionError> {
        let leaving = Leaving::new(self.lazy("before_leave", Some(connection))?, room.clone(), connection.clone());
        let hooks = async {
            for hook in &self.registry.hooks.before_leave {
                decision("before_leave", async { hook(leaving.clone()).await }).await?;
            }
            Ok(())
        };
        self.decide("before_leave", hooks).await
    }

    fn after_leave(self: Arc<Self>, room: Arc<str>, leaver: Leaver) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Leaver { id, connection, cause } = leaver;
            let context = self.lazy("after_leave", connection.as_ref());
            let Ok(context) = context else { return };
            let left = LeftRoom::new(context, room, id, cause);
            for hook in &self.registry.hooks.after_leave {
                let subject = || format!("room {}, connection {}", left.room(), left.id());
                let argument = left.clone();
                self.run_guarded("after_leave", subject, async move { hook(argument).await }).await;
            }
        })
    }

    async fn before_publish(
        &self,
        sender: Option<&Connection>,
        message: RoomMessage,
    ) -> Result<Option<RoomMessage>, ActionError> {
        let (context, mut message) = (self.lazy("before_publish", sender)?, message);
        let hooks = async {
            for hook in &self.registry.hooks.before_publish {
                let publishing = Publishing::new(context.clone(), message);
                match decision("before_publish", async move { hook(publishing).await }).await? {
                    Some(changed) => message = changed,
                    None => return Ok(None),
                }
            }
            Ok(Some(message))
        };
        self.decide("before_publish", hooks).await
    }

    fn before_deliver(&self, to: &Connection, message: &RoomMessage) -> Delivery {
        let mut replaced: Option<RoomMessage> = None;
        for hook in &self.registry.hooks.before_deliver {
            match catch_in_place(|| hook(Delivering::new(to, replaced.as_ref().unwrap_or(message)))) {
                Some(Delivery::Unchanged) => {}
                Some(Delivery::Replace(other)) => replaced = Some(other),
                Some(Delivery::Drop) | None => return Delivery::Drop,
            }
        }
        replaced.map_or(Delivery::Unchanged, Delivery::Replace)
    }
}

#[async_trait]
impl TaskCallbacks for HookRunner {
    fn late_at(&self) -> Instant {
        Instant::now() + self.deadline
    }

    async fn before_enqueue(&self, job: &JobDraft, until: Instant) -> Result<(), ActionError> {
        let (host, depth) = (super::running(&self.host)?, DEPTH.try_with(|depth| *depth).unwrap_or(0));
        if depth >= MAX_DEPTH {
            bound_reached("enqueue_hooks");
            let message = format!("before_enqueue hooks enqueue jobs whose hooks enqueue others, {MAX_DEPTH} deep");
            return Err(ActionError::new(ErrorKind::Conflict, "hook_recursion", message));
        }
        let id = job.request().map_or_else(|| host.next_request_id(), |id| RequestId::Given(id.into()));
        let limit = until.saturating_duration_since(Instant::now());
        let context = Context::of_hook(host, "before_enqueue", (Caller::application(), id), Some(limit));
        let hooks = async {
            for hook in &self.registry.hooks.before_enqueue {
                decision("before_enqueue", async { hook((context.clone(), job.clone())).await }).await?;
            }
            Ok(())
        };
        let late =
            || ActionError::of(ErrorKind::Timeout, "the before_enqueue hooks did not end in time: nothing was stored");
        // As in `run_guarded`.
        let hooks = DEPTH.scope(depth + 1, async move { timeout_at(until, hooks).await });
        catch(hooks).await?.unwrap_or_else(|_| Err(late()))
    }
}

/// Runs a hook that can refuse. A failure of what the hook itself used is distinguished from one of the join, the leave, the
/// publication or the enqueue that it decides on: a full backend, for instance, refuses no leave, but what a hook writes.
async fn decision<T>(name: &str, hook: impl Future<Output = Result<T, ActionError>>) -> Result<T, ActionError> {
    catch(hook).await.flatten().map_err(|error| match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal => {
            let message = format!("the {name} hook failed: {}", error.message());
            error.with_message(message)
        }
        _ => error,
    })
}

/// Runs a hook; its panic becomes `internal`, and is counted and logged.
pub(super) async fn catch<T>(hook: impl Future<Output = T>) -> Result<T, ActionError> {
    AssertUnwindSafe(hook).catch_unwind().await.map_err(|panic| report_panic(&*panic))
}

pub(super) fn catch_in_place<T>(hook: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(hook)).map_err(|panic| report_panic(&*panic)).ok()
}

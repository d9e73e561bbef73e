//! Runs the hooks of an application, and contains their panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, poll};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::config::Config;
use crate::connection::Connection;
use crate::context::CallHost;
use crate::error::{ActionError, ErrorKind, report_panic};
use crate::future::BoxFuture;
use crate::hooks::{Delivery, Handshake, RoomMessage};
use crate::id::ConnectionId;
use crate::metrics::bound_reached;
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::registry::Registry;
use crate::rooms::{LeftBy, RoomCallbacks};
use crate::shutdown::Shutdown;
use crate::task::JobDraft;
use crate::task::draft::TaskCallbacks;

/// How deep enqueues may be in the hooks of others: a hook that enqueues in any case would call itself until the stack ends.
const MAX_DEPTH: u32 = 8;

tokio::task_local! {
    /// How many enqueues wait for the hook that runs.
    static DEPTH: u32;
}

/// The hooks of an application, with the node that they take.
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

    fn node(&self) -> Result<Node, ActionError> {
        Ok(super::running(&self.host)?.node().clone())
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

    pub(super) async fn run_connect(&self, handshake: &mut Handshake) -> Result<(), ActionError> {
        let node = self.node()?;
        let hooks = async {
            for hook in &self.registry.connection_hooks {
                catch(hook.connect(&node, handshake)).await??;
            }
            Ok(())
        };
        let late = || ActionError::of(ErrorKind::Timeout, "the connection was not decided on in time");
        let limit = self.deadline;
        // As in `run_guarded`.
        catch(async move { timeout(limit, hooks).await }).await?.unwrap_or_else(|_| Err(late()))
    }

    pub(super) async fn run_created(&self, connection: &Connection) {
        let Ok(node) = self.node() else { return };
        for hook in &self.registry.connection_hooks {
            let subject = || format!("connection {}", connection.id());
            self.run_guarded("created", subject, hook.created(&node, connection)).await;
        }
    }

    pub(super) async fn run_destroyed(&self, connection: &Connection, reason: CloseReason) {
        let Ok(node) = self.node() else { return };
        for hook in &self.registry.connection_hooks {
            let subject = || format!("connection {}", connection.id());
            self.run_guarded("destroyed", subject, hook.destroyed(&node, connection, reason)).await;
        }
    }
}

#[async_trait]
impl RoomCallbacks for HookRunner {
    fn has_room_hooks(&self) -> bool {
        !self.registry.room_hooks.is_empty()
    }

    async fn join(&self, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let node = self.node()?;
        for hook in &self.registry.room_hooks {
            decision("join", hook.join(&node, room, connection)).await?;
        }
        Ok(())
    }

    async fn before_leave(&self, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let node = self.node()?;
        for hook in &self.registry.room_hooks {
            decision("before_leave", hook.before_leave(&node, room, connection)).await?;
        }
        Ok(())
    }

    fn left(self: Arc<Self>, room: Arc<str>, id: ConnectionId, by: LeftBy) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Ok(node) = self.node() else { return };
            for hook in &self.registry.room_hooks {
                let subject = || format!("room {room}, connection {id}");
                self.run_guarded("left", subject, hook.left(&node, &room, &id, by.cause())).await;
            }
        })
    }

    async fn before_publish(&self, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError> {
        let node = self.node()?;
        let mut message = message;
        for hook in &self.registry.room_hooks {
            match decision("before_publish", hook.before_publish(&node, message)).await? {
                Some(changed) => message = changed,
                None => return Ok(None),
            }
        }
        Ok(Some(message))
    }

    fn has_deliver_hooks(&self) -> bool {
        !self.registry.deliver_hooks.is_empty()
    }

    fn deliver(&self, to: &Connection, message: &RoomMessage) -> Delivery {
        let mut replaced: Option<RoomMessage> = None;
        for hook in &self.registry.deliver_hooks {
            match catch_in_place(|| hook.deliver(to, replaced.as_ref().unwrap_or(message))) {
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

    async fn before_enqueue(&self, job: &mut JobDraft<'_>, until: Instant) -> Result<(), ActionError> {
        let (node, depth) = (self.node()?, DEPTH.try_with(|depth| *depth).unwrap_or(0));
        if depth >= MAX_DEPTH {
            bound_reached("enqueue_hooks");
            let message = format!("before_enqueue hooks enqueue jobs whose hooks enqueue others, {MAX_DEPTH} deep");
            return Err(ActionError::new(ErrorKind::Conflict, "hook_recursion", message));
        }
        let hooks = async {
            for hook in &self.registry.task_hooks {
                decision("before_enqueue", hook.before_enqueue(&node, job)).await?;
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
